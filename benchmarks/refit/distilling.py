"""A depth-pruned SmolLM2-135M that learns back from the whole one: size, speed and held-out loss of each.

Text is Python's own reference; pages that are judged with are neither pruned nor distilled with. The teacher is the
model that was pruned. A share of what pruning cost in nats a token is what distillation wins back.

Sizes are cut to what two cores do in some minutes: 3 of 30 layers go; the student learns from 60 steps of 4 examples of
128 tokens (30,720 tokens, where papers take billions), and is judged by 24 examples of 256 tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from benchmarks._bars import Row
from benchmarks.refit._chart import Bar, draw
from benchmarks.refit._material import data_set, made, prose, shelf
from dockyard.artifact.store import Store
from dockyard.artifact.writers import Parent
from dockyard.ops import Inputs
from dockyard.ops._checkpoint import open_checkpoint
from dockyard.ops.distill import PLUGIN as DISTILL
from dockyard.ops.distill import DistillParams
from dockyard.ops.training import sft
from dockyard.ops.training.examples import Encoding, encode

REMOVED = 3
STEPS, BATCH, LENGTH, THREADS, HELD = 60, 4, 128, 0, 24
RATE = 2e-4


def rows() -> Iterator[Row]:
    from dockyard.ops.prune import PLUGIN as PRUNE
    from dockyard.ops.prune import PruneParams

    train, held = prose()
    with shelf() as store:
        base = store.resolve("smollm2").digest
        data = data_set(store, "prose", [{"text": text} for text in train])
        calibration = store.root.parent / "calibration.txt"
        calibration.write_text("\n\n".join(train)[:60_000], encoding="utf-8")
        files = {"calibration/0.txt": store.add_file(calibration).digest}
        start = Inputs(artifacts=(Parent(digest=base, role="base"),), files=files)
        pruned = made(store, PRUNE, start, PruneParams(method="depth", layers=REMOVED), "pruned")
        parts = {"base": pruned.entry.descriptor.digest, "teacher": base, "data": data}
        params = DistillParams(
            steps=STEPS, batch=BATCH, length=LENGTH, learning_rate=RATE, threads=THREADS, checkpoint_every=STEPS
        )
        inputs = Inputs(artifacts=tuple(Parent(digest=digest, role=role) for role, digest in parts.items()))
        student = made(store, DISTILL, inputs, params, "distilled")
        found = {name: _judged(store, name, held) for name in ("smollm2", "pruned", "distilled")}
        sizes = {"pruned": pruned.entry.size, "distilled": student.entry.size}
        for name, one in found.items():
            told = f"{one['weights'] / 1e6:.1f} M weights, loss {one['loss']:.4f}, {one['speed']:.0f} tokens/s read"
            size = f", artifact {sizes[name] / 1e6:.0f} MB" if name in sizes else ""
            yield Row(name, told + size, "-", None)
        bars = [Bar(name, one["loss"], f"{one['loss']:.3f} nats a token") for name, one in found.items()]
        draw(
            "distillation",
            "Held-out loss of SmolLM2-135M, whole, without 3 of 30 layers, and distilled",
            bars,
            least=2.0,
        )
        cost = found["pruned"]["loss"] - found["smollm2"]["loss"]
        won = found["pruned"]["loss"] - found["distilled"]["loss"]
        told = f"{won / cost:.0%} ({won:.4f} of {cost:.4f} nats a token; {STEPS} steps of {BATCH * LENGTH} tokens)"
        yield Row("loss that pruning cost, won back by distillation", told, ">= 50 %", won >= 0.5 * cost)


def _judged(store: Store, name: str, held: list[str]) -> dict[str, Any]:
    start = open_checkpoint(store, name)
    records = [{"text": text[:2000]} for text in held]
    examples = encode(start.tokenizer, "text", records, Encoding(length=256, pack=True)).examples[:HELD]
    began = time.monotonic()
    losses = sft.losses(start.model, examples)
    seconds = time.monotonic() - began
    return {
        "loss": sft.mean_loss(losses),
        "weights": sum(weight.numel() for weight in start.model.parameters()),
        "speed": sum(len(example["input_ids"]) for example in examples) / seconds,
    }
