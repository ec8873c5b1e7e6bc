"""The one thread that makes GenAI's scheduler step, and hands out what each step brought.

GenAI holds Python's lock for the whole of a step. So a step is kept short (``_openvino_plan.step_tokens``), everything
that comes of it is done here at once, and then the lock is offered to those who wait for it: the reader of the worker's
socket and the threads of new requests.
"""

from __future__ import annotations

import threading
import time
import traceback
from typing import Any, Protocol

from dockyard.engines._openvino_answer import Choice, Job
from dockyard.engines._openvino_prefix import Prefixes
from dockyard.engines._openvino_turns import Turns
from dockyard.errors import EngineError, InvalidRequest, Overloaded

OFFERS = 8
"""How often newcomers may make the next step wait, a fraction of a millisecond each time."""

OFFER_SECONDS = 0.0004


class Pipelines(Protocol):
    """Makes GenAI's pipeline, and puts an adapter to it."""

    def use(self, key: str) -> Any:
        """The pipeline, with the adapter of that name ("": none). Nothing of it may be running."""
        ...

    def renew(self) -> None:
        """A fresh one, after a failure: the old one is never used again."""
        ...


class Pump:
    """Runs jobs; ``run`` blocks until the job is over. Threads may call it at the same time."""

    def __init__(self, pipelines: Pipelines, prefixes: Prefixes) -> None:
        self._pipelines = pipelines
        self._prefixes = prefixes
        self._changed = threading.Condition()
        self._arrived: list[Job] = []
        self._turns: Turns[Job] = Turns()
        self._backlog: list[Choice] = []
        self._running: list[Choice] = []
        self._pipeline: Any = pipelines.use("")
        self._number = 0
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="steps", daemon=True)
        self._thread.start()

    def run(self, job: Job) -> None:
        with self._changed:
            if self._closing:
                raise EngineError("the model is being unloaded")
            self._arrived.append(job)
            self._changed.notify()
        job.wait()

    def close(self) -> None:
        """Fails what is under way; the pipeline is free afterwards."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._pipeline = None

    def _loop(self) -> None:
        while self._gather():
            self._start()
            try:
                self._pipeline.step()
            except Exception as error:  # noqa: BLE001 - whatever native code throws ends the requests that caused it
                self._recover(error)
            for choice in self._running:
                self._read(choice)
            self._running = [choice for choice in self._running if not choice.finished]
            self._offer()
        closed = EngineError("the model was unloaded")
        for job in {*self._turns.items(), *(choice.job for choice in (*self._backlog, *self._running)), *self._arrived}:
            job.end(closed)

    def _gather(self) -> bool:
        """Wait for work; False when it is time to go."""
        with self._changed:
            while not (self._arrived or self._running or self._backlog or len(self._turns) or self._closing):
                self._changed.wait()
            arrived, self._arrived = self._arrived, []
        now = time.monotonic()
        for job in arrived:
            self._turns.add(job.key, job, now)
        return not self._closing

    def _start(self) -> None:
        """Give the scheduler those whose turn it is."""
        for job in [job for job in self._turns.items() if job.emit(None)]:
            self._turns.remove(job)
            job.end()
        running = len(self._running) + len(self._backlog)
        before = self._turns.key
        for job in self._turns.take(running, time.monotonic()):
            self._backlog += job.choices
        if self._turns.key != before or not running:
            self._switch()
        later = []
        for choice in self._backlog:
            # A grammar that can't be compiled makes a step fail: one at a time, so that it is known whose it was.
            if choice.structured and any(each.structured and not each.produced for each in self._running):
                later.append(choice)
            else:
                self._add(choice)
        self._backlog = later

    def _switch(self) -> None:
        try:
            self._pipeline = self._pipelines.use(self._turns.key)
        except Exception as error:  # noqa: BLE001 - an adapter that GenAI can't take ends the requests that ask for it
            traceback.print_exc()
            failed = EngineError(f"adapter {self._turns.key}: {error}", hint="the worker's log has details")
            for choice in self._backlog:
                choice.finished = True
                choice.job.end(failed)
            self._backlog = []
            self._pipelines.renew()

    def _add(self, choice: Choice) -> None:
        job = choice.job
        if not choice.produced and (job.sight is None or not job.sight.images):
            job.cached = max(job.cached, self._prefixes.cached(job.ids)) if choice.index == 0 else job.cached
        self._number += 1
        try:
            choice.handle = self._pipeline.add_request(self._number, *_prompt(choice), choice.config)
        except RuntimeError as error:
            choice.finished = True
            job.end(InvalidRequest(f"OpenVINO: {_said(error)}"))
            return
        self._running.append(choice)

    def _read(self, choice: Choice) -> None:
        job, handle = choice.job, choice.handle
        enough = False
        if not handle.can_read():
            if str(handle.get_status().name) == "IGNORED":
                self._finish(choice)
                job.end(_full())
                return
            enough = job.emit(None)
        while not enough and handle.can_read():
            for output in handle.read().values():
                if job.first is None:
                    job.first = time.monotonic()
                    self._keep(job, [])
                finish = _FINISH[output.finish_reason.name]
                enough = choice.take(output.generated_ids, output.generated_log_probs, finish)
        if enough:
            self._finish(choice)

    def _finish(self, choice: Choice) -> None:
        """Over, or no longer wanted: the scheduler drops it with the next step."""
        told, choice.finished = choice.finished, True
        choice.handle.cancel()
        job = choice.job
        if choice.produced:
            self._keep(job, choice.produced[:-1])
        if not told:  # the caller is gone, and wants none of the others
            for other in job.choices:
                if not other.finished and other.handle is not None:
                    other.handle.cancel()
                other.finished = True
        if all(other.finished for other in job.choices):
            job.end()

    def _keep(self, job: Job, said: list[int]) -> None:
        if job.sight is None or not job.sight.images:  # what they are is not in the tokens
            self._prefixes.add(job.ids + said)

    def _recover(self, error: Exception) -> None:
        """A failed step leaves GenAI's scheduler in pieces: make a new one, and go on where everybody was."""
        traceback.print_exc()
        running, self._running = self._running, []
        guilty = [choice for choice in running if choice.structured and not choice.produced]
        lost = [choice for choice in running if choice.structured and choice.produced] if guilty else running
        for choice in guilty:
            choice.job.end(
                InvalidRequest(f"the output's grammar can't be compiled: {_said(error)}", param="response_format")
            )
        for choice in lost:
            choice.job.end(EngineError(f"OpenVINO: {_said(error)}", hint="the worker's log has details"))
        for choice in (*guilty, *lost):
            for other in choice.job.choices:
                other.finished = True
        self._pipelines.renew()
        self._pipeline = self._pipelines.use(self._turns.key)
        for choice in running:
            if not choice.finished:
                choice.config.max_new_tokens -= len(choice.produced)
                self._backlog.append(choice)

    def _offer(self) -> None:
        """Let go of Python's lock, for longer while requests keep coming: they should all be in the next step."""
        count = -1
        for _ in range(OFFERS):
            time.sleep(0 if count < 0 else OFFER_SECONDS)
            if len(self._arrived) <= max(count, 0):
                return
            count = len(self._arrived)


_FINISH = {"NONE": None, "STOP": "stop", "LENGTH": "length", "TOOL_CALL": "stop"}


def _full() -> Overloaded:
    return Overloaded(
        "the KV cache that all requests of this model share is full, and this one had to go",
        hint="try again, or load the model with fewer parallel requests or a larger flag kv_tokens",
        retry_after=1.0,
    )


def _prompt(choice: Choice) -> tuple[Any, ...]:
    """What GenAI is given of a choice, after a failure with what was said already."""
    if (sight := choice.job.sight) is not None:
        return sight.text + choice.said(), list(sight.images)
    import numpy as np
    from openvino import Tensor

    return (Tensor(np.array([choice.job.ids + choice.produced], dtype=np.int64)),)


def _said(error: Exception) -> str:
    """The sentence in one of OpenVINO's long messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
