"""A Python program in the sandbox: no network, no files of the machine; time, memory, processes and output bounded.

That it *finished* is told by a word that the program is not given: ending early with status 0 is not finishing. Its
checks run in a process of their own (``_apart``), which it can't read. All that it began ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path

import msgspec

from dockyard.errors import EngineUnavailable
from dockyard.sandbox import cgroup, jail

INSTALL = "apt-get install bubblewrap (or dnf, pacman, apk)"
_OWN_PROCESSES = 7
"""Of the sandbox itself, in its control group."""
_KILL_SECONDS = 5.0
_LOOK = 0.25
"""Seconds between two looks at whether a program is ready to run."""
_TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE = 2
"""How many times its seconds a program may take that waits for a processor which others have: a model, say. More would
let a hostile one, on a busy machine, hold its place for as much longer."""
_INSIDE = Path(__file__).with_name("_apart.py")


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What a program may use: seconds, bytes of memory, processes, processors, bytes of output kept.

    The seconds are those on the clock, but for those in which it was ready and had no processor (``allowed``).
    """

    seconds: float = 10.0
    memory: int = 512 << 20
    processes: int = 16
    cpus: float = 1.0
    output: int = 16 << 10


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a program ended. ``reason`` says in words why it did not finish; ``output`` is what it printed, cut."""

    finished: bool
    output: str
    reason: str = ""


def unavailable() -> str | None:
    """Why no sandbox can be made here, or None. Whether the kernel lets us is found out by the first start."""
    if sys.platform != "linux":
        return "the sandbox needs Linux"
    missing = [name for name in ("bwrap", "prlimit") if jail.found(name) == ""]
    return f"the sandbox needs {' and '.join(missing)}, not found here" if missing else None


async def run(program: str, bounds: Bounds | None = None, *, checks: str = "") -> Ended:
    """Run it to its end or its bounds, and then ``checks``, which see its names: what they call runs in the program's
    process, and what that answers comes to them as plain data. Without checks that it finished is its own word.

    Raises EngineUnavailable where there is no sandbox; never runs it without.
    """
    bounds = bounds or Bounds()
    missing = unavailable()
    if missing:
        raise EngineUnavailable(missing, hint=INSTALL)
    python, word, source = jail.python(), secrets.token_hex(16), _INSIDE.read_text()
    async with contextlib.AsyncExitStack() as stack:
        group = cgroup.make(bounds.memory, bounds.processes + _OWN_PROCESSES, bounds.cpus)
        stack.push_async_callback(group.remove)
        if "pids" not in group.folders and os.geteuid() == 0:
            raise EngineUnavailable(
                "the number of a program's processes can't be bounded here: the kernel does not count root's",
                hint="run Dockyard as an ordinary user, or where it may make control groups",
            )
        files = {path: stack.enter_context(jail.content(text)) for path, text in jail.FILES.items()}
        binds = {str(path): (path.resolve(), False) for path in jail.needs(python)}
        limits = jail.limits(
            processes=0 if "pids" in group.folders else bounds.processes + 1,
            memory=0 if "memory" in group.folders else bounds.memory,
            seconds=int(bounds.seconds) + 1,
        )
        argv = [*group.entry(), jail.found("bwrap"), *jail.arguments(binds, files), "--", *limits]
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, python, "-I", "-S", "-c", source,
                stdin=PIPE, stdout=PIPE, stderr=STDOUT,
                env={"PATH": "/usr/bin:/bin", "HOME": jail.HOME, "LANG": "C.UTF-8", "TMPDIR": jail.TEMPORARY},
                pass_fds=tuple(files.values()), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise EngineUnavailable(f"the sandbox can't be started: {error}", hint=INSTALL) from error
        asked = msgspec.json.encode({"program": program, "checks": checks, "word": word, "source": source})
        kept, late = await _watch(process, asked, bounds)
        output = kept.decode("utf-8", "replace")
        if output.startswith("bwrap: "):
            raise EngineUnavailable(f"the sandbox can't be made: {output.splitlines()[0]}", hint=INSTALL)
        finished = not late and output.endswith(word)
        reason = "" if finished else _reason(process, group, late, output, bounds)
        return Ended(finished=finished, output=output.removesuffix(word), reason=reason)


async def _watch(process: Process, asked: bytes, bounds: Bounds) -> tuple[bytes, bool]:
    """What it printed, head and tail, and whether it ran out of time; it is gone afterwards."""
    assert process.stdin is not None
    assert process.stdout is not None
    kept = bytearray()
    late = False

    async def talk() -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(asked)
            await process.stdin.drain()
        process.stdin.close()
        while part := await process.stdout.read(1 << 16):
            kept.extend(part)
            if len(kept) > bounds.output:
                # The head says what went wrong, the tail whether it finished.
                del kept[bounds.output // 2 : len(kept) - bounds.output // 2]
        await process.wait()

    talking = asyncio.ensure_future(talk())
    try:
        late = not await _ends(talking, process.pid, bounds.seconds)
    finally:
        talking.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _KILL_SECONDS)
        # Who inherited the pipe and lives on must not keep ours open.
        transport = getattr(process, "_transport", None)
        if transport is not None:
            transport.close()
    return bytes(kept), late


async def _ends(talking: asyncio.Future[None], pid: int, seconds: float) -> bool:
    """Whether it ends in its time."""
    loop = asyncio.get_running_loop()
    began = last = loop.time()
    until, ready = seconds, 0.0
    while (left := began + until - loop.time()) > 0:
        await asyncio.wait({talking}, timeout=min(left, _LOOK))
        if talking.done():
            await talking
            return True
        (used, runs), now = _state(pid), loop.time()
        ready, last = ready + (now - last if runs else 0.0), now
        until = allowed(seconds, used, max(0.0, ready - used))
    return False


def allowed(seconds: float, used: float, waited: float) -> float:
    """The seconds on the clock after which a program is late, that has used so many of processors and waited for one
    for so many: what others took of the machine is not held against it, up to ``PATIENCE`` times its own."""
    return seconds if used >= seconds else min(seconds + waited, PATIENCE * seconds)


def _state(pid: int) -> tuple[float, bool]:
    """Seconds of processors that a process and all below it have used, and whether one of them runs or would; nought
    and no where the system does not tell."""
    used, runs = 0.0, False
    found = [str(pid)]
    for each in found:
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            used += (int(fields[11]) + int(fields[12])) / _TICKS
            runs = runs or fields[0] == "R"
            found += Path(f"/proc/{each}/task/{each}/children").read_text().split()
    return used, runs


def _reason(process: Process, group: cgroup.Group, late: bool, output: str, bounds: Bounds) -> str:
    if late:
        return f"it took more than {bounds.seconds:g} seconds"
    complaint = group.complaint()
    if complaint:
        return complaint.replace("sandbox.", "its bound of ").removesuffix(" allows")
    last = output.strip().splitlines()[-1:] or [""]
    if process.returncode == 0:
        return "it ended itself before its end"
    return last[0][:300] or f"it ended with status {process.returncode}"
