"""Parsing in another process: started when first needed, replaced when it dies or takes too long."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
from typing import Any

import msgspec

from dockyard.errors import PayloadTooLarge, UnsafeContent, UnsupportedFormat, by_code
from dockyard.knowledge.model import Parsed
from dockyard.knowledge.parsers import Bounds, check_size, choose, named, parse

_LENGTH = struct.Struct(">I")


class Apart:
    """Parses documents one after another; use it as ``with``. Foreign code runs in the child only."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def parse(self, data: bytes, path: str) -> Parsed:
        """Raises as ``parsers.parse`` does, and UnsafeContent for what takes too long or too much memory."""
        name = choose(path)
        if not named(name).apart:
            return parse(data, path, self._bounds)
        check_size(len(data), self._bounds)
        told = self._ask([name, path, data, msgspec.to_builtins(self._bounds)])
        if not told[0]:
            raise by_code(told[1])(told[2], hint=told[3] or None)
        parsed = msgspec.convert(told[1], Parsed)
        if len(parsed.text) > self._bounds.characters:
            raise PayloadTooLarge(f"its text has {len(parsed.text)} characters, too many for one document")
        if not parsed.text.strip():
            raise UnsupportedFormat("it holds no text", hint="a scan needs text recognition first")
        return parsed

    def _ask(self, request: list[Any]) -> Any:
        child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(self._bounds.seconds, end)
        timer.start()
        try:
            body = msgspec.msgpack.encode(request)
            child.stdin.write(_LENGTH.pack(len(body)) + body)
            child.stdin.flush()
            head = child.stdout.read(_LENGTH.size)
            answer = child.stdout.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else b""
        except (BrokenPipeError, OSError):
            answer = b""
        finally:
            timer.cancel()
        if not answer:
            self._end()
            if late.is_set():
                raise UnsafeContent(f"parsing it takes more than {self._bounds.seconds:g} seconds")
            raise UnsafeContent("parsing it ended the parser", hint="the file is broken, or made to break parsers")
        return msgspec.msgpack.decode(answer)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dockyard.knowledge.parsers._child", str(self._bounds.memory)]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        return self._child

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue
