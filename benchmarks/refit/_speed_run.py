"""One side of ``speed`` in a process of its own: ``python -m benchmarks.refit._speed_run ours|trl STEPS``."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from benchmarks.refit._material import attacks, shelf
from dockyard.artifact.writers import Lineage
from dockyard.hardware import cores
from dockyard.ops import Inputs, Job
from dockyard.ops._checkpoint import open_checkpoint
from dockyard.ops._libraries import library
from dockyard.ops.training import loop
from dockyard.ops.training.adapters import lora_config
from dockyard.ops.training.examples import Encoding, encode
from dockyard.ops.tune import TuneParams, supervised, with_adapter

BATCH, LENGTH = 8, 64


def main(which: str, steps: int) -> None:
    warnings.simplefilter("ignore")
    library("torch").set_num_threads(cores())
    with shelf() as store, tempfile.TemporaryDirectory() as folder:
        start = open_checkpoint(store, "smollm2")
        records = attacks("train", BATCH * steps)
        params = TuneParams(steps=steps, batch=BATCH, length=LENGTH, chat=False, checkpoint_every=10**6)
        job = Job(store=store, inputs=Inputs(), annotations={}, lineage=Lineage(), work=Path(folder))
        trainer = (_ours if which == "ours" else _trl)(job, start, params, records)
        moments: list[float] = []

        class Clock(library("transformers").TrainerCallback):  # type: ignore[misc]  # imported when used
            def on_step_end(self, *_: Any, **__: Any) -> None:
                moments.append(time.monotonic())

        trainer.add_callback(Clock())
        trainer.train()
        loss = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    rate = (len(moments) - 1) / (moments[-1] - moments[0])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"rate": rate, "memory": memory, "loss": loss}))


def _ours(job: Job, start: Any, params: TuneParams, records: list[dict[str, str]]) -> Any:
    learnt = encode(start.tokenizer, "completion", records, Encoding(length=LENGTH, chat=False))
    model = with_adapter(start.model, "lora", params)
    return supervised(job, model, start.tokenizer, params, learnt, None, 2e-4)


def _trl(job: Job, start: Any, params: TuneParams, records: list[dict[str, str]]) -> Any:
    """As TRL's documentation has it, on a CPU; what ours switches off for both (hub, cards, checkpoints) is off."""
    trl = library("trl")
    arguments = trl.SFTConfig(
        output_dir=str(job.work / "trl"),
        max_steps=params.steps,
        per_device_train_batch_size=BATCH,
        learning_rate=2e-4,
        lr_scheduler_type="cosine",
        max_length=LENGTH,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        seed=0,
    )
    trainer = trl.SFTTrainer(
        model=start.model.train(),
        args=arguments,
        train_dataset=loop.dataset(records),
        processing_class=loop.with_padding(start.tokenizer),
        peft_config=lora_config(start.model, "lora", params),
    )
    trainer.remove_callback(library("transformers").PrinterCallback)
    return trainer


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
