"""The walk over a suite's items: asked, scored and journaled one by one, several at a time; then counted."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from dockyard import hardware, scorers
from dockyard.client import AsyncClient
from dockyard.errors import DockyardError, EngineUnavailable, ServerUnreachable
from dockyard.ops.evaluate import shelf, statistics
from dockyard.ops.evaluate.aggregate import aggregates
from dockyard.ops.evaluate.asking import Served, may_pass
from dockyard.ops.evaluate.journal import Head, Journal, journal
from dockyard.ops.evaluate.result import Contamination, Record, Run, Subject, digest_of, read, write
from dockyard.ops.evaluate.speed import speed as measure
from dockyard.ops.evaluate.suite import Loaded, check
from dockyard.sandbox import program
from dockyard.scorers import Answer, Item, Scorer
from dockyard.types import Json, OnProgress, Progress

ATTEMPTS = 4
MOST_UNREACHED = 8
"""Items in a row that found no server: it is gone, and the rest is left for when it is back."""
_WAIT_SECONDS = 0.5
_LIBRARIES = ("dockyard", "numpy", "rouge-score", "sacrebleu", "xllamacpp", "openvino-genai")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How to run: ``together`` items at a time, asked and scored. ``again`` forgets what was measured before; ``retry``
    asks the items again that had failed. ``repeat`` tells runs of the same thing apart, and changes the seeds.
    ``speed`` measures that too, before the items, for the run's ``performance``."""

    together: int = 4
    again: bool = False
    retry: bool = False
    repeat: int = 0
    speed: bool = False
    contamination: Contamination = Contamination()


async def evaluate(
    loaded: Loaded,
    subject: Subject,
    client: AsyncClient,
    home: Path,
    plan: Plan | None = None,
    *,
    judges: AsyncClient | None = None,
    on_progress: OnProgress | None = None,
) -> Run:
    """Put the suite to the model that ``client`` serves, and keep the run in ``home``.

    Goes on where an earlier one was stopped, and gives the kept run if there is one. An item that fails, whatever
    fails, is a record with its error. Raises DockyardError where the suite can't be run at all, ServerUnreachable where
    the server has gone, and Conflict where another process is at it; then, and by Ctrl-C, the journal is left.
    """
    plan = plan or Plan()
    statistics.library()  # what it all ends in, so that nothing is asked in vain
    served = Served(client, subject.name, loaded.suite, judges)
    built = [scorers.build(chosen, served) for chosen in loaded.suite.chosen()]
    check(loaded.suite, built)
    if any("sandbox" in scorer.needs for scorer in built) and (missing := program.unavailable()):
        raise EngineUnavailable(missing, hint=program.INSTALL)
    identity = run_id(loaded, subject, plan)
    path = shelf.place(home, identity)
    with journal(shelf.journal_of(home, identity), Head(id=identity, began=time.time())) as kept:
        before = read(path) if path.exists() and not plan.again else None
        if before is not None:
            if not plan.retry or not _failed(before.records):
                kept.remove()
                return await _completed(before, path, client, plan)
            for record in before.records:
                if record.answer is not None and not record.failures:
                    kept.finished.setdefault(record.id, record)
        performance = await measure(client, subject.name) if plan.speed else before.performance if before else {}
        walk = _Walk(loaded, served, built, kept, plan, on_progress)
        seconds = await walk.all()
        run = _run(identity, loaded, subject, built, walk.records(), plan, kept.began, seconds)
        seen = before.contamination if before and not plan.contamination.checked else plan.contamination
        run = msgspec.structs.replace(run, performance=performance, contamination=seen)
        write(run, path)
        kept.remove()
    return run


async def _completed(run: Run, path: Path, client: AsyncClient, plan: Plan) -> Run:
    """A kept run with what this plan asks for beyond its answers: its speed, and whether the items had been seen."""
    more: dict[str, Any] = {}
    if plan.speed and not run.performance:
        more["performance"] = await measure(client, run.subject.name)
    if plan.contamination.checked and plan.contamination != run.contamination:
        more["contamination"] = plan.contamination
    if more:
        run = msgspec.structs.replace(run, **more)
        write(run, path)
    return run


def run_id(loaded: Loaded, subject: Subject, plan: Plan) -> str:
    """Twelve hex digits of all that a run depends on: the same are the same run."""
    parts: list[Json] = [loaded.digest, loaded.data_digest, subject.digest or [subject.name, subject.server]]
    parts += [subject.name] if subject.digest is not None and "@" in subject.name else []
    return digest_of([*parts, plan.repeat])[7:19]


class _Walk:
    """One pass over the items."""

    def __init__(
        self,
        loaded: Loaded,
        served: Served,
        built: Sequence[Scorer],
        kept: Journal,
        plan: Plan,
        on_progress: OnProgress | None,
    ) -> None:
        self._loaded, self._served, self._built, self._kept, self._plan = loaded, served, built, kept, plan
        self._show = on_progress
        self._needs = {need for scorer in built for need in scorer.needs}
        self._fresh: dict[str, Record] = {}
        self._unreached = 0
        self._stopped: ServerUnreachable | None = None

    async def all(self) -> float:
        """Ask and score what is not finished; the seconds that took."""
        began = time.monotonic()
        for scorer in self._built:
            scorer.begin(self._loaded.items)
        waiting = iter(
            [(n, item) for n, item in enumerate(self._loaded.items) if self._kept.finished.get(item.id) is None]
        )
        self._told()

        async def worker() -> None:
            for number, item in waiting:  # shared: each takes the next one
                if self._stopped is not None:
                    return
                record = await self._one(number, item)
                if record.error:
                    self._fresh[item.id] = record  # told in the run, and asked again by whoever goes on
                else:
                    self._kept.add(record)
                self._told()

        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, self._plan.together)):
                group.create_task(worker())
        if self._stopped is not None:
            raise self._stopped
        return time.monotonic() - began

    def records(self) -> tuple[Record, ...]:
        """In the order of the data."""
        return tuple({**self._kept.finished, **self._fresh}[item.id] for item in self._loaded.items)

    async def _one(self, number: int, item: Item) -> Record:
        suite = self._loaded.suite
        asked = digest_of([item.prompt, item.choices, item.text, suite.parameters])
        blank = Record(
            id=item.id, input=asked, line=item.line, references=item.references, label=item.label,
            prompt=item.prompt or None,
        )  # fmt: skip
        seed = suite.seed + number + self._plan.repeat * len(self._loaded.items)
        try:
            answer = await self._answer(item, seed)
            self._unreached = 0
        except ServerUnreachable as error:
            self._unreached += 1
            if self._unreached >= MOST_UNREACHED:
                self._stopped = error
            return msgspec.structs.replace(blank, error=error.message)
        except DockyardError as error:
            return msgspec.structs.replace(blank, error=error.message)
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # an answer of another shape
            told = f"the server's answer can't be read: {type(error).__name__}: {error}"
            return msgspec.structs.replace(blank, error=told)
        values: dict[str, tuple[float, ...]] = {}
        notes: dict[str, str] = {}
        failures: dict[str, str] = {}
        for scorer in self._built:
            try:
                score = await scorer.score(item, answer)
            except DockyardError as error:
                failures[scorer.name] = error.message
                continue
            except Exception as error:  # noqa: BLE001 - other people's code: a broken scorer is a record, not the end
                failures[scorer.name] = f"{type(error).__name__}: {error}"
                continue
            values.update(score.values)
            if score.note:
                notes[scorer.name] = score.note
        return msgspec.structs.replace(blank, answer=answer, scores=values, notes=notes, failures=failures)

    async def _answer(self, item: Item, seed: int) -> Answer:
        """Ask, again where that may help. Raises DockyardError."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = Answer()
                if "text" in self._needs:
                    answer = await self._served.text(item, seed)
                if "likelihood" in self._needs:
                    found = await self._served.likelihoods(item)
                    answer = msgspec.structs.replace(
                        answer, likelihoods=found.likelihoods, seconds=answer.seconds + found.seconds
                    )
                return answer
            except DockyardError as error:
                if attempt == ATTEMPTS or not may_pass(error):
                    raise
                await asyncio.sleep(min(error.retry_after or _WAIT_SECONDS * 2 ** (attempt - 1), 30.0))
        raise AssertionError

    def _told(self) -> None:
        if self._show is not None:
            done, total = len(self._kept.finished.keys() | self._fresh.keys()), len(self._loaded.items)
            self._show(Progress(action="step", item=self._loaded.suite.name, total=total, current=done))


def _failed(records: Sequence[Record]) -> bool:
    return any(record.error or record.failures for record in records)


def _run(
    identity: str,
    loaded: Loaded,
    subject: Subject,
    built: Sequence[Scorer],
    records: tuple[Record, ...],
    plan: Plan,
    began: float,
    seconds: float,
) -> Run:
    suite = loaded.suite
    answers = [record.answer for record in records if record.answer is not None]
    return Run(
        id=identity,
        suite=suite.name,
        suite_digest=loaded.digest,
        data_digest=loaded.data_digest,
        subject=subject,
        scorers=suite.chosen(),
        parameters=dict(suite.parameters),
        seed=suite.seed,
        records=records,
        aggregates=aggregates(records, built, suite.seed),
        errors=sum(bool(record.error) for record in records),
        began=began,
        seconds=seconds,
        environment=environment(),
        contamination=plan.contamination,
        usage={
            "prompt_tokens": float(sum(each.prompt_tokens for each in answers)),
            "tokens": float(sum(each.tokens for each in answers)),
            "seconds": sum(each.seconds for each in answers),
        },
    )


def environment() -> dict[str, Json]:
    """The machine that asked and scored, and the versions that figures depend on."""
    machine = hardware.detect()
    found: dict[str, Json] = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": msgspec.to_builtins(machine),
    }
    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, "versions": libraries}
