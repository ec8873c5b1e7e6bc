"""The echo engine in a worker process of its own: everything about workers can be tried without a model.

With the flag ``faults`` a request may ask for trouble: ``extra["fault"] = {"kind": …, "after": N}`` does it after N
tokens. Kinds: "kill" (SIGKILL to the worker), "exit" (status 3), "hang" (no further heartbeat or token), "stall" (no
further token), "error" and "bug" (an expected and an unexpected exception). ``fault_on_load`` does it while loading.
``linger`` is the seconds that closing takes, as freeing a large model does.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import msgspec

from dockyard.engines import Emit, LoadPlan, _echo
from dockyard.errors import DockyardError, InvalidRequest, LoadFailed, Overloaded
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import Format, Json, Kind, LoadOptions, ModelFiles, Request

FLAGS = frozenset({"faults", "fault_on_load", "linger"})


class EchoWorker:
    """As ``echo``, but blocking and isolated."""

    name = "echo-worker"
    serves: frozenset[Kind] = _echo.SERVES
    formats: frozenset[Format] = frozenset()
    isolated = True
    extra = ""

    def __init__(self) -> None:
        self._closed = threading.Event()
        self._speed = 0.0
        self._faults = False
        self._linger = 0.0
        self._context = 0
        self._known = _echo.Vocabulary()

    def refuses(self, files: ModelFiles, hardware: Hardware) -> str | None:  # noqa: ARG002
        return None

    def plan(self, files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware) -> LoadPlan:  # noqa: ARG002
        if unknown := set(options.flags) - FLAGS:
            raise InvalidRequest(f"{self.name} has no flag {min(unknown)!r}", param=f"flags.{min(unknown)}")
        return _echo.plan(self.name, files, options, settings, 48 << 20)

    def load(self, files: ModelFiles, plan: LoadPlan) -> LoadPlan:  # noqa: ARG002
        self._speed = float(plan.details.get("speed", 0))
        self._context = plan.context
        self._faults = bool(plan.details.get("faults"))
        self._linger = float(plan.details.get("linger", 0))
        if fault := plan.details.get("fault_on_load"):
            print(f"about to {fault} while loading", flush=True)
            self._go_wrong(fault, LoadFailed(f"told to {fault}"))
        return plan

    def generate(self, request: Request, emit: Emit) -> None:
        fault: Json = {}
        if self._faults and "fault" in request.extra:
            fault = request.extra["fault"]
            rest = {name: value for name, value in request.extra.items() if name != "fault"}
            request = msgspec.structs.replace(request, extra=rest)
        begun = time.monotonic()
        for count, chunk in enumerate(_echo.answer(request, self._context, self._known)):
            if fault and count >= fault.get("after", 0):
                self._go_wrong(fault["kind"], Overloaded("told to fail", hint="do not ask for it", retry_after=7))
            if self._speed and self._closed.wait(max(0.0, begun + (count + 1) / self._speed - time.monotonic())):
                return
            if emit(chunk):
                return

    def close(self) -> None:
        self._closed.set()
        time.sleep(self._linger)

    def _go_wrong(self, kind: str, expected: DockyardError) -> None:
        if kind in ("kill", "hang"):
            os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
            self._closed.wait()  # signals take a moment to arrive
        elif kind == "exit":
            os._exit(3)
        elif kind == "stall":
            self._closed.wait()
        elif kind == "bug":
            raise ZeroDivisionError("told to")
        else:
            raise expected


PLUGIN = EchoWorker
