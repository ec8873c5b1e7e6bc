"""A model writes records: new instructions (Self-Instruct, Wang et al., 2023), harder ones (Evol-Instruct, Xu et al.,
2023), other words for the same, questions and answers on documents, and answers to prompts that are given.

Every record that is accepted is journaled, one line each, before the next is asked for, so a run that is stopped goes
on. A record is left out when it is no record, repeats or nearly repeats another or a seed, shares words with an
evaluation, or holds personal data; each reason is counted.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.ops import Job
from dockyard.ops.dataset import near, overlap, private
from dockyard.ops.dataset.records import Kind, Record, map_text, prompt_of, text_of
from dockyard.ops.synthetic.report import Report

Ask = Callable[[str, int], str]
"""Asks the writing model one question, with a seed; its answer."""

METHODS = ("self-instruct", "evolve", "paraphrase", "documents", "answers")
_DEEPEN = (
    "Rewrite the task so that it has one more condition that must be met.",
    "Rewrite the task so that it asks for reasoning in several steps.",
    "Rewrite the task so that it is about a concrete case instead of a general one.",
    "Write a new task from the same field that is rarer and a little harder.",
)
_LABEL = re.compile(
    r"^\s*(?:#+\s*)?(?:\*\*)?(?:new )?(?:task|question|instruction|answer|[qa])\s*\d*\s*[:.](?:\*\*)?\s*", re.I
)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to write and when to stop; see ``SynthesizeParams``."""

    method: str
    count: int
    near: float
    private: str
    attempts: int
    seed: int


class _Journal(msgspec.Struct):
    """What was asked and accepted until now."""

    path: Path
    records: list[Record] = []
    attempts: int = 0
    left_out: dict[str, int] = {}

    def keep(self, record: Record | None, reason: str | None) -> None:
        """One attempt more; written at once, so that it is not repeated."""
        self.attempts += 1
        if record is not None:
            self.records.append(record)
        if reason is not None:
            self.left_out[reason] = self.left_out.get(reason, 0) + 1
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode([record, reason]) + b"\n")


def write_records(
    job: Job, ask: Ask, plan: Plan, kind: Kind, seeds: list[Record], held: Sequence[overlap.Item]
) -> tuple[list[Record], Report]:
    """``plan.count`` records, and what is to be said of them. Raises InvalidRequest for seeds that the method can't
    start from, and where the model writes too little that can be used; what ``ask`` raises comes out, and a later call
    goes on."""
    _fitting(plan.method, kind)
    journal = _opened(job.work / "written.jsonl")
    watch, known = overlap.Watch(held), _Known(plan.near, seeds if plan.method != "answers" else [])
    for kept in journal.records:
        known.add(kept)
    wanted = min(plan.count, len(seeds)) if plan.method == "answers" else plan.count
    while len(journal.records) < wanted:
        if journal.attempts >= plan.attempts * wanted:
            raise InvalidRequest(
                f"{len(journal.records)} of {wanted} records after {journal.attempts} attempts; left out: "
                + ", ".join(f"{count} {why}" for why, count in sorted(journal.left_out.items())),
                param="attempts",
                hint="give more varied seeds, a larger model, or a higher temperature",
            )
        record: Record | None = _written(ask, plan, seeds, journal)
        reason = "no record" if record is None else _wrong(record, watch, known)
        if record is not None and reason == "personal data" and plan.private == "redact":
            record, reason = map_text(record, private.redact), None
        if record is not None and reason is None:
            known.add(record)
        journal.keep(record if reason is None else None, reason)
        job.step("synthesize", len(journal.records), wanted)
    return journal.records, _report(plan, seeds, journal)


def _fitting(method: str, kind: Kind) -> None:
    wanted: dict[str, tuple[Kind, ...]] = {
        "self-instruct": ("completion", "messages", "prompts"),
        "evolve": ("completion", "messages", "prompts"),
        "paraphrase": ("completion", "messages", "prompts"),
        "documents": ("text",),
        "answers": ("prompts", "completion", "messages"),
    }
    if kind not in wanted[method]:
        raise InvalidRequest(
            f"{method} starts from {' or '.join(wanted[method])} records, and the seeds are {kind}", param="seeds"
        )


def _opened(path: Path) -> _Journal:
    journal = _Journal(path=path)
    if path.exists():
        whole = path.read_bytes()
        lines = whole.split(b"\n")
        path.write_bytes(b"".join(line + b"\n" for line in lines[:-1]))  # a last line that was cut off is none
        for line in lines[:-1]:
            record, reason = msgspec.json.decode(line)
            journal.attempts += 1
            if record is not None:
                journal.records.append(record)
            if reason is not None:
                journal.left_out[reason] = journal.left_out.get(reason, 0) + 1
    return journal


def _written(ask: Ask, plan: Plan, seeds: list[Record], journal: _Journal) -> Record | None:
    """One attempt, drawn by its number: the same number asks the same."""
    number = journal.attempts
    draw = random.Random(plan.seed * 1_000_003 + number)  # noqa: S311 - a choice of examples, not a secret
    seed = draw.randrange(1 << 31)
    if plan.method == "answers":
        prompt = prompt_of(seeds[len(journal.records) % len(seeds)])
        answer = ask(prompt, seed).strip()
        return {"prompt": prompt, "completion": answer} if answer else None
    if plan.method == "documents":
        passage = _passage(draw, str(draw.choice(seeds)["text"]))
        task = _cleaned(
            ask(f"Read this text:\n\n{passage}\n\nWrite one question that it answers. Only the question.", seed)
        )
        asked = f"{passage}\n\nQuestion: {task}\nAnswer from the text, in one or two sentences."
        answer = ask(asked, seed).strip() if task else ""
        return {"prompt": task, "completion": answer} if task and answer else None
    task = _cleaned(ask(_request(draw, plan.method, seeds, journal.records), seed))
    answer = ask(task, seed).strip() if task else ""
    return {"prompt": task, "completion": answer} if task and answer else None


def _request(draw: random.Random, method: str, seeds: list[Record], made: list[Record]) -> str:
    """What is asked of the model for a new task."""
    if method == "self-instruct":
        pool = [prompt_of(record) for record in (*draw.sample(seeds, min(3, len(seeds))), *made[-1:])]
        shown = "\n".join(f"Task {at}: {text}" for at, text in enumerate(pool, 1))
        return f"Here are some tasks:\n{shown}\n\nWrite one new task of another sort. Write only the task."
    task = prompt_of(draw.choice(seeds))
    if method == "paraphrase":
        return f"Say this in other words, with the same meaning. Write only the new text.\n\n{task}"
    return f"{draw.choice(_DEEPEN)} Write only the new task.\n\nTask: {task}"


def _passage(draw: random.Random, text: str, words: int = 150) -> str:
    parts = text.split()
    at = draw.randrange(max(1, len(parts) - words + 1))
    return " ".join(parts[at : at + words])


def _cleaned(text: str) -> str:
    """A task without the label that models put before it; its first paragraph."""
    first = text.strip().split("\n\n")[0].strip()
    return _LABEL.sub("", first).strip().strip('"')


class _Known:
    """Texts that must not come again, by their MinHash."""

    def __init__(self, least: float, seeds: Sequence[Record]) -> None:
        self._least = least
        self._signatures = [near.signature(text_of(record)) for record in seeds]
        self._prompts = {near.plain(prompt_of(record)) for record in seeds}

    def add(self, record: Record) -> None:
        self._signatures.append(near.signature(text_of(record)))
        self._prompts.add(near.plain(prompt_of(record)))

    def has(self, record: Record) -> bool:
        if near.plain(prompt_of(record)) in self._prompts:
            return True
        mine = near.signature(text_of(record))
        return any(float((mine == other).mean()) >= self._least for other in self._signatures)


def _wrong(record: Record, watch: overlap.Watch, known: _Known) -> str | None:
    if known.has(record):
        return "repeated"
    if watch.hit(text_of(record)) is not None:
        return "in an evaluation"
    return "personal data" if private.find(text_of(record)) else None


def _report(plan: Plan, seeds: list[Record], journal: _Journal) -> Report:
    texts, before = [text_of(r) for r in journal.records], [text_of(r) for r in seeds]
    marks = [near.signature(text) for text in before]
    nearest = [max(float((near.signature(text) == mark).mean()) for mark in marks) for text in texts]
    copied = overlap.overlap(texts, [[text] for text in before])
    return Report(
        method=plan.method,
        made=len(texts),
        seeds=len(seeds),
        attempts=journal.attempts,
        left_out=dict(sorted(journal.left_out.items())),
        fidelity={
            "distinct_2": _distinct(texts),
            "seed_distinct_2": _distinct(before),
            "mean_words": sum(len(text.split()) for text in texts) / len(texts),
            "seed_mean_words": sum(len(text.split()) for text in before) / len(before),
        },
        privacy={"nearest_seed": sum(nearest) / len(nearest), "copied": float(len(copied))},
    )


def _distinct(texts: Sequence[str]) -> float:
    """Different pairs of words, of all pairs."""
    pairs: Counter[tuple[str, str]] = Counter()
    for text in texts:
        words = near.plain(text).split()
        pairs.update(pairwise(words))
    return len(pairs) / max(1, pairs.total())
