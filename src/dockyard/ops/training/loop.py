"""The loop: a trainer of transformers or TRL, run to its end from wherever an earlier run of the same job was stopped.

The job's work folder has checkpoints; the newest that is whole is gone on from. Optimiser, schedule, random numbers and
the place in the data come from it, so the result is that of a run which was never stopped, on the same kind of machine
with the same number of threads (which the folder remembers).
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.hardware import cores
from dockyard.ops import Job
from dockyard.ops._libraries import library
from dockyard.ops.training.chart import Point, svg
from dockyard.ops.training.options import TrainParams

KEPT = 2
"""Checkpoints on disk at once: the newest may be half written when the process is killed."""
_CLOCKS = ("time", "per_second", "epoch", "total_flos", "num_tokens", "frac_reward")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run: every figure that the trainer logged, by step, and how far it got."""

    points: tuple[Point, ...]
    steps: int
    stopped_early: bool = False


def arguments(kind: Any, job: Job, params: TrainParams, *, rate: float, held_out: bool, **more: Any) -> Any:
    """The trainer's configuration, of the class ``kind``. ``rate`` is the method's own step size."""
    torch = library("torch")
    every = min(params.evaluate_every or params.steps, params.steps)
    choosing = held_out and params.patience > 0
    return kind(
        output_dir=str(job.work / "checkpoints"),
        max_steps=params.steps,
        per_device_train_batch_size=params.batch,
        per_device_eval_batch_size=params.batch,
        gradient_accumulation_steps=params.accumulate,
        learning_rate=params.learning_rate if params.learning_rate is not None else rate,
        lr_scheduler_type=params.schedule,
        warmup_steps=math.ceil(params.warmup * params.steps),
        weight_decay=params.weight_decay,
        max_grad_norm=params.clip,
        seed=params.seed,
        data_seed=params.seed,
        eval_strategy="steps" if held_out else "no",
        eval_steps=every if held_out else None,
        save_strategy="steps",
        save_steps=every if choosing else params.checkpoint_every,
        save_total_limit=KEPT,
        load_best_model_at_end=choosing,
        metric_for_best_model="eval_loss" if choosing else None,
        greater_is_better=False if choosing else None,
        restore_callback_states_from_checkpoint=choosing,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        **more,
    )


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """What trainers warn of is either ours to see to or nothing that a user can act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def on_threads(job: Job, params: TrainParams) -> Iterator[None]:
    """So many threads as the job computes with, whatever is summed: another number would end in other digits."""
    torch = library("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(params.threads or _threads(job.work))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(job: Job, trainer: Any, params: TrainParams, title: str) -> Outcome:
    """Train to the end, or on from a checkpoint. Raises InvalidRequest when the loss is no number any more, and
    Cancelled when the user stops it; a later call with the same job then goes on."""
    transformers = library("transformers")
    trainer.create_model_card = lambda *_, **__: None  # a page of unfilled fields, made at each checkpoint
    for callback in (transformers.PrinterCallback, transformers.trainer_callback.ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(_reporter(job, params.steps, title))
    if trainer.args.load_best_model_at_end:
        trainer.add_callback(transformers.EarlyStoppingCallback(early_stopping_patience=params.patience))
    found = last_checkpoint(job.work / "checkpoints", params)
    if found is not None:
        job.note(f"going on after step {found.name.partition('-')[2]}")
    with quiet_libraries(), on_threads(job, params):
        trainer.train(resume_from_checkpoint=str(found) if found else None)
    state = trainer.state
    return Outcome(
        points=tuple(_points(state.log_history)),
        steps=state.global_step,
        stopped_early=state.global_step < params.steps,
    )


def last_checkpoint(folder: Path, params: TrainParams) -> Path | None:
    """The newest checkpoint that is whole and has steps before it; others are deleted. A trainer that goes on from the
    end makes one step too many, so the last ones are made again instead."""
    if not folder.is_dir():
        return None
    numbered = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]), reverse=True)
    for path in numbered:
        # The state is written last, so a checkpoint that has a readable one has the rest too.
        try:
            state = json.loads((path / "trainer_state.json").read_bytes())
        except (OSError, ValueError):
            state = None
        if state is not None and not _at_the_end(state, params):
            return path
        shutil.rmtree(path, ignore_errors=True)
    return None


def _at_the_end(state: Mapping[str, Any], params: TrainParams) -> bool:
    """Whether a checkpoint's state is that of a training which is over, by its steps or by its patience."""
    stopping = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback", {}).get("attributes", {})
    waited = stopping.get("early_stopping_patience_counter", 0)
    return bool(state["global_step"] >= params.steps or 0 < params.patience <= waited)


def records_of(job: Job, outcome: Outcome, title: str, facts: Mapping[str, Any]) -> dict[str, Path]:
    """A run's figures and their picture as files of the artifact. They say nothing of clocks, so that the same training
    gives the same bytes."""
    folder = job.work / "training"
    folder.mkdir(exist_ok=True)
    told = {"steps": outcome.steps, "stopped_early": outcome.stopped_early, **facts, "points": outcome.points}
    (folder / "training.json").write_bytes(msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n")
    (folder / "loss.svg").write_text(svg(outcome.points, title), encoding="utf-8")
    return {f"training/{name}": folder / name for name in ("loss.svg", "training.json")}


def dataset(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as the trainers take them."""
    return library("datasets").Dataset.from_list([dict(row) for row in rows])


def with_padding(tokenizer: Any) -> Any:
    """A copy of the tokenizer that can pad; the model's own stays as it is."""
    import copy

    found = copy.deepcopy(tokenizer)
    if found.pad_token is None:
        found.pad_token = found.eos_token or found.convert_ids_to_tokens(0)
    return found


def _threads(work: Path) -> int:
    """Threads of this job, the same in each of its runs: sums in another order end in other digits."""
    path = work / "threads"
    if not path.exists():
        path.write_text(str(cores()), encoding="utf-8")
    return int(path.read_text(encoding="utf-8"))


def _points(history: Sequence[Mapping[str, Any]]) -> Iterator[Point]:
    for entry in history:
        for name, value in sorted(entry.items()):  # a checkpoint has them in another order
            clock = any(word in name for word in _CLOCKS)
            if name != "step" and not clock and isinstance(value, int | float) and name != "train_loss":
                yield Point(entry["step"], name, float(f"{value:.6g}"))


def _reporter(job: Job, steps: int, title: str) -> Any:
    transformers = library("transformers")

    class Reporter(transformers.TrainerCallback):  # type: ignore[misc,name-defined]  # imported when used
        """Tells the job of each step, and stops a run whose loss is no number."""

        def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            job.step(title, state.global_step, steps)

        def on_substep_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            job.step(title, state.global_step, steps)

        def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            loss = (logs or {}).get("loss", 0.0)
            if not math.isfinite(loss):
                raise InvalidRequest(
                    f"the loss is {loss} at step {state.global_step}: training has come apart",
                    param="learning_rate",
                    hint="take a smaller step size, or a longer warm-up",
                )
            if "loss" in (logs or {}):
                job.step(title, state.global_step, steps, loss)
            shown = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in (logs or {}).items() if name in _SHOWN]
            last = state.global_step in (1, steps) or state.global_step % max(1, steps // 20) == 0
            if shown and (last or "eval_loss" in (logs or {})):
                job.note(f"step {state.global_step}/{steps}  {'  '.join(shown)}")

    return Reporter()


_SHOWN = ("loss", "eval_loss", "rewards/accuracies", "rewards/margins", "reward", "kl")
