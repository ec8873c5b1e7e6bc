"""Run by another Python: ``python _llmcompressor_child.py TASK.json``. Imports nothing of this package.

The task names a folder to read, one to write, llm-compressor's scheme, and token ids to calibrate with (W4A16 only).
"""

from __future__ import annotations

import json
import os
import sys


def main(path: str) -> None:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123  this script stays plain
        task = json.load(file)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(task["source"], dtype="auto", device_map="auto")
    tokenizer = AutoTokenizer.from_pretrained(task["source"])
    runs = task["runs"]
    if runs:
        recipe = GPTQModifier(targets="Linear", scheme=task["scheme"], ignore=["lm_head"])
        rows = Dataset.from_list([{"input_ids": run, "attention_mask": [1] * len(run)} for run in runs])
        oneshot(
            model=model,
            recipe=recipe,
            dataset=rows,
            max_seq_length=max(map(len, runs)),
            num_calibration_samples=len(runs),
        )
    else:
        oneshot(model=model, recipe=QuantizationModifier(targets="Linear", scheme=task["scheme"], ignore=["lm_head"]))
    model.save_pretrained(task["target"], save_compressed=True)
    tokenizer.save_pretrained(task["target"])


if __name__ == "__main__":
    main(sys.argv[1])
