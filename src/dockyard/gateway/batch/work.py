"""One batch on its way: the lines that are left, and the files it ends in."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from typing import BinaryIO

from dockyard.gateway.batch.lines import Line, Spent, stopped
from dockyard.state.batches import Batch, Batches, Finished
from dockyard.state.files import File, Files

AT_ONCE = 500
ENDING = ("in_progress", "finalizing", "cancelling")


class Work:
    """``waiting`` holds lines not begun, ``running`` those under way; ``tries`` counts what failed for no fault of a
    line's own. ``stopped`` is "cancelled" or "expired" when no more lines are to be begun.
    """

    def __init__(self, batch: Batch, lines: list[Line], done: set[int]) -> None:
        self.batch = batch
        self.lines = lines
        self.done = done
        self.waiting = deque(line for line in lines if line.number not in done)
        self.running: dict[asyncio.Task[None], Line] = {}
        self.tries: dict[int, int] = {}
        self.started = 0.0
        self.stopped = batch.about.stopped

    @property
    def over(self) -> bool:
        """Nothing of it is under way any more, and nothing is to be begun."""
        return not self.running and (self.stopped is not None or not self.waiting)

    def stop(self, why: str) -> None:
        """Begin nothing more, and cut off what is under way."""
        self.stopped = why
        for task in self.running:
            task.cancel()

    def text(self, files: Files, line: Line) -> bytes:
        """A line as it stands in the input."""
        with files.path(self.batch.input).open("rb") as file:
            file.seek(line.start)
            return file.read(line.length)


async def finish(batches: Batches, work: Work) -> bool:
    """Write the files of a batch that is over, and end it. May be repeated until it has succeeded."""
    batch = work.batch
    now = int(time.time())
    await batches.change(batch.id, ("in_progress",), "finalizing", times={"finalizing_at": now}, stopped=work.stopped)
    if work.stopped is not None:
        left = [line for line in work.lines if line.number not in work.done]
        for place in range(0, len(left), AT_ONCE):
            rows = [
                Finished(batch=batch.id, line=line.number, ok=False, body=stopped(batch.id, line, work.stopped))
                for line in left[place : place + AT_ONCE]
            ]
            await batches.record(rows)
    spent = Spent()
    output = await _written(batches, work, ok=True, spent=spent)
    failures = await _written(batches, work, ok=False, spent=spent)
    made = [file for file in (output, failures) if file is not None]
    status = work.stopped or "completed"
    return await batches.finish(
        batch.id,
        ENDING,
        status,
        made,
        times={f"{status}_at": int(time.time())},
        output=output and output.id,
        failures=failures and failures.id,
        usage=spent.told(),
        stopped=work.stopped,
    )


async def _written(batches: Batches, work: Work, *, ok: bool, spent: Spent) -> File | None:
    """One of the two files, in the order of the input; None if nothing is to be said in it."""
    batch, files = work.batch, batches.files
    # Its name is known beforehand, so that writing it again after a crash leaves no second one.
    id = f"file-{batch.id.removeprefix('batch_')}{'out' if ok else 'err'}"
    part, size = files.part(id), 0
    with part.open("wb") as sink:
        async for rows in batches.lines(batch.id, ok=ok):
            size += await asyncio.to_thread(_write, sink, rows, spent if ok else None)
        sink.flush()
        await asyncio.to_thread(os.fsync, sink.fileno())
    if not size:
        part.unlink()
        return None
    part.replace(files.path(id))
    now = time.time()
    seconds = batch.about.output_seconds
    return File(
        id=id,
        key=batch.key,
        name=f"{batch.id}_{'output' if ok else 'error'}.jsonl",
        purpose="batch_output",
        bytes=size,
        created=now,
        expires=None if seconds is None else now + seconds,
    )


def _write(sink: BinaryIO, rows: list[bytes], spent: Spent | None) -> int:
    for row in rows:
        if spent is not None:
            spent.add(row)
    return sink.write(b"".join(row + b"\n" for row in rows))


def expired(batch: Batch) -> bool:
    return batch.expires <= time.time()
