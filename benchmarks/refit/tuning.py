"""Adapters against full tuning, and a 4-bit base against a whole one, on SmolLM2-135M.

The task is to tell requests that attack a model's instructions from others (s-labs' labelled set, Apache-2.0): 960 of
10,679 requests to learn from, 200 others to be judged with, so that all three runs take some twenty minutes of two
cores. (The first ten steps only learn that the answer is one word; after thirty, what differs is still the path and not
the method.) Each run sees the same examples in the same order. The score is the share of held-out requests for which
the right answer is the likelier one; its intervals are of paired resampling.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psutil

from benchmarks._bars import Row
from benchmarks.refit._material import attacks, data_set, made, shelf
from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Store
from dockyard.artifact.writers import Parent
from dockyard.ops import Inputs
from dockyard.ops._checkpoint import open_checkpoint, open_tokenizer
from dockyard.ops.dataset.artifact import open_dataset
from dockyard.ops.training.adapters import weight_bytes
from dockyard.ops.training.examples import IGNORED, Encoding, encode
from dockyard.ops.training.nf4 import texts_to_look_at, to_four_bits
from dockyard.ops.tune import PLUGIN, TuneParams

STEPS, BATCH, LENGTH, HELD = 120, 8, 64, 200
TOGETHER = 8
THREADS = 0
RATES = {"full": 5e-5, "lora": 5e-4, "qlora": 5e-4}


def rows() -> Iterator[Row]:
    with shelf() as store:
        base = store.resolve("smollm2").digest
        data = data_set(store, "attacks", attacks("train", STEPS * BATCH))
        held = attacks("test", HELD)
        found = {}
        for method in ("full", "lora", "qlora"):
            found[method] = _tuned(store, base, data, held, method)
        yield from _table(_judged(store, base, None, held), found)
        served = _judged(store, base, ("lora", store.resolve("qlora").digest), held)
        told = f"accuracy {_mean(served['right']):.1%}, loss {_mean(served['loss']):.4f}"
        yield Row("qlora's adapter over the whole base, as it is served", told, "-", None)


def _table(before: dict[str, Any], found: dict[str, Any]) -> Iterator[Row]:
    full, lora, packed = found["full"], found["lora"], found["qlora"]
    yield Row("accuracy before tuning", f"{_mean(before['right']):.1%} of {HELD}", "-", None)
    for method, one in found.items():
        told = f"accuracy {_mean(one['right']):.1%}, loss {_mean(one['loss']):.4f}, {one['minutes']:.1f} min"
        yield Row(f"{method}: held out", f"{told}, artifact {one['bytes'] / 1e6:.1f} MB", "-", None)
    low, high = paired(full["right"], lora["right"])
    told = f"{_mean(lora['right']) - _mean(full['right']):+.1%} ({low:+.1%} to {high:+.1%})"
    yield Row("LoRA's held-out score, less full tuning's", told, "interval reaches 0", high >= 0)
    share = lora["learnt"] / full["learnt"]
    yield Row("weights that LoRA learns, of all", f"{share:.2%}", "< 2 %", share < 0.02)
    share = packed["weight_bytes"] / lora["weight_bytes"]
    told = f"{share:.2f} ({packed['weight_bytes'] / 1e6:.0f} of {lora['weight_bytes'] / 1e6:.0f} MB)"
    yield Row("QLoRA's weights in memory, of LoRA's", told, "<= 0.5", share <= 0.5)
    low, high = paired(lora["loss"], packed["loss"])
    told = f"{_mean(packed['loss']) - _mean(lora['loss']):+.4f} ({low:+.4f} to {high:+.4f})"
    yield Row("QLoRA's held-out loss, less LoRA's", told, "interval reaches 0", low <= 0)


def _tuned(store: Store, base: str, data: str, held: list[dict[str, str]], method: str) -> dict[str, Any]:
    params = TuneParams(
        method=method,  # type: ignore[arg-type]
        steps=STEPS,
        batch=BATCH,
        length=LENGTH,
        learning_rate=RATES[method],
        chat=False,
        seed=1,
        threads=THREADS,
        checkpoint_every=STEPS,
    )
    inputs = Inputs(artifacts=(Parent(digest=base, role="base"), Parent(digest=data, role="data")))
    began = time.monotonic()
    done = made(store, PLUGIN, inputs, params, method)
    minutes = (time.monotonic() - began) / 60
    print(f"    {method}: {minutes:.1f} min, {psutil.Process().memory_info().rss / 1e6:.0f} MB", file=sys.stderr)
    digest = done.entry.descriptor.digest
    words = open_tokenizer(model_files(store, base))
    seen = texts_to_look_at(_encoded(words, open_dataset(store, data).part("train"), LENGTH), params.seed)
    found = _judged(store, base, (method, digest), held, seen)
    return {**found, "minutes": minutes, "bytes": done.entry.size}


def _judged(
    store: Store,
    base: str,
    made: tuple[str, str] | None,
    held: list[dict[str, str]],
    seen: Sequence[Sequence[int]] = (),
) -> dict[str, Any]:
    """For each held-out request whether the right answer is likelier, and the loss of the right one, in nats. ``seen``
    is what the base of ``qlora`` was rounded by."""
    method, digest = made or ("", base)
    start = open_checkpoint(store, digest if method == "full" else base)
    model = start.model
    if method == "qlora":
        model = to_four_bits(model, "float32", seen)
    if method in ("lora", "qlora"):
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, _folder(store, digest))
    learnt = {"full": sum(weight.numel() for weight in model.parameters())}
    learnt["lora"] = learnt["qlora"] = sum(
        weight.numel() for name, weight in model.named_parameters() if "lora_" in name
    )
    examples = _encoded(start.tokenizer, held, 256)
    yes, no = (start.tokenizer(word, add_special_tokens=False).input_ids[0] for word in (" yes", " no"))
    right, loss = [], []
    for at in range(0, len(examples), TOGETHER):
        for one, each in zip(examples[at : at + TOGETHER], _answers(model, examples[at : at + TOGETHER]), strict=True):
            (place, *_) = (place for place, label in enumerate(one["labels"]) if label != IGNORED)
            true = one["labels"][place]
            right.append(float(each[place - 1, true] > each[place - 1, no if true == yes else yes]))
            told = range(place, len(one["labels"]))
            loss.append(-sum(float(each[after - 1, one["labels"][after]]) for after in told) / len(told))
    return {"right": right, "loss": loss, "learnt": learnt.get(method, 0), "weight_bytes": weight_bytes(model)}


def _encoded(tokenizer: Any, records: Sequence[dict[str, Any]], length: int) -> list[dict[str, list[int]]]:
    return encode(tokenizer, "completion", records, Encoding(length=length, chat=False)).examples


def _answers(model: Any, examples: Sequence[dict[str, list[int]]]) -> list[Any]:
    """For each example the log-probabilities ``[tokens, words]`` of the token after each of its own."""
    import torch

    longest = max(len(one["input_ids"]) for one in examples)
    ids = torch.tensor([one["input_ids"] + [0] * (longest - len(one["input_ids"])) for one in examples])
    mask = torch.tensor([[int(at < len(one["input_ids"])) for at in range(longest)] for one in examples])
    with torch.inference_mode():
        return list(torch.log_softmax(model.eval()(input_ids=ids, attention_mask=mask).logits.float(), -1))


def _folder(store: Store, digest: str) -> str:
    from pathlib import Path

    return str(Path(model_files(store, digest).weights[0]).parent)


def paired(first: Sequence[float], second: Sequence[float], seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """The interval of the mean difference, second less first, by resampling pairs."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    draw = random.Random(seed)
    means = sorted(_mean(draw.choices(differences, k=len(differences))) for _ in range(2000))
    cut = int((1 - level) / 2 * len(means))
    return means[cut], means[-cut - 1]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
