"""DPO on pairs as an arena gives them: does the model come to prefer the better answer to questions it has not seen?

Pairs are TruthfulQA's true answer against each false one, 50 questions to learn from and 50 others to be judged with.
Sizes are cut to what two cores do in some minutes: 100 of the 817 questions, 40 steps of 4 pairs of at most 96 tokens.
A pair counts as right where the model gives the true answer, in its chat template, the greater log-probability. The
interval is of resampled questions, since pairs of one question are not independent.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks._bars import Row
from benchmarks.refit._material import data_set, made, prose, shelf, truths
from dockyard.artifact.materialize import model_files
from dockyard.artifact.writers import Parent
from dockyard.ops import Inputs
from dockyard.ops._checkpoint import open_checkpoint
from dockyard.ops.align import PLUGIN, AlignParams
from dockyard.ops.training import sft
from dockyard.ops.training.examples import Encoding, encode

STEPS, BATCH, LENGTH, THREADS = 40, 4, 96, 0


def rows() -> Iterator[Row]:
    questions = truths()
    random.Random(5).shuffle(questions)
    train, held = questions[:50], questions[50:]
    with shelf() as store:
        base = store.resolve("smollm2").digest
        data = data_set(store, "pairs", [pair for one in train for pair in _pairs(one)])
        params = AlignParams(
            steps=STEPS, batch=BATCH, length=LENGTH, threads=THREADS, learning_rate=1e-4, seed=2, checkpoint_every=STEPS
        )
        inputs = Inputs(artifacts=(Parent(digest=base, role="base"), Parent(digest=data, role="data")))
        digest = made(store, PLUGIN, inputs, params, "aligned").entry.descriptor.digest
        start = open_checkpoint(store, base)
        before, plain = _right(start.tokenizer, start.model, held), _perplexity(start.tokenizer, start.model)
        from peft import PeftModel

        model = PeftModel.from_pretrained(start.model, Path(model_files(store, digest).weights[0]).parent)
        after, tuned = _right(start.tokenizer, model, held), _perplexity(start.tokenizer, model)
    pairs = sum(len(one) for one in before)
    low, high = _interval(before, after)
    told = f"{_share(before):.1%} to {_share(after):.1%} of {pairs} pairs ({low:+.1%} to {high:+.1%})"
    yield Row("held-out preference accuracy, before and after DPO", told, "interval above 0", low > 0)
    yield Row("perplexity of other text, before and after", f"{plain:.2f} to {tuned:.2f}", "-", None)


def _pairs(one: dict[str, Any]) -> list[dict[str, str]]:
    good = one["choices"][one["expected_index"]]
    return [{"prompt": one["question"], "chosen": good, "rejected": bad} for bad in one["choices"] if bad != good]


def _right(tokenizer: Any, model: Any, held: list[dict[str, Any]]) -> list[list[float]]:
    """For each question, for each of its pairs: 1 where the true answer is the likelier one."""
    found = []
    for one in held:
        records = [{"prompt": one["question"], "completion": each} for each in one["choices"]]
        examples = encode(tokenizer, "completion", records, Encoding(length=256)).examples
        losses = [total for total, _ in sft.losses(model, examples)]
        good = losses[one["expected_index"]]
        found.append([float(good < loss) for at, loss in enumerate(losses) if at != one["expected_index"]])
    return found


def _perplexity(tokenizer: Any, model: Any) -> float:
    records = [{"text": text[:1200]} for text in prose()[1]]
    examples = encode(tokenizer, "text", records, Encoding(length=256, pack=True)).examples[:16]
    return math.exp(sft.mean_loss(sft.losses(model, examples)))


def _share(found: Sequence[Sequence[float]]) -> float:
    values = [value for one in found for value in one]
    return sum(values) / len(values)


def _interval(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> tuple[float, float]:
    """95 % of the differences of the shares when questions are drawn again."""
    draw, differences = random.Random(0), []
    for _ in range(2000):
        drawn = draw.choices(range(len(before)), k=len(before))
        differences.append(_share([after[at] for at in drawn]) - _share([before[at] for at in drawn]))
    differences.sort()
    return differences[50], differences[-51]
