"""What a tool server writes beside the protocol: a file that stays short, and the last lines for error messages.

Secrets that the server was given are struck out before anything is kept.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

LOG_BYTES = 1 << 20
LINE_BYTES = 4096
BYTES_PER_SECOND = 256 << 10
"""What is beyond this is read and forgotten: a server that floods its log costs no disk."""
LAST_LINES = 20
_SHORTEST = 4


class ServerLog:
    """``tell`` adds a line of ours, ``follow`` those of a pipe. Closed by ``close``."""

    def __init__(self, folder: Path, name: str, secrets: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)[:100]}.log"
        self._file = self._path.open("ab", buffering=0)
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._forms = forms(secrets.values())
        self._second = 0.0
        self._written = 0

    @property
    def last(self) -> str:
        return "\n".join(self._last)

    def tell(self, text: str) -> None:
        self._keep(f"dockyard: {text}")

    async def follow(self, reader: asyncio.StreamReader) -> None:
        """Every line until the pipe ends; a line that never ends is cut."""
        rest = b""
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > LINE_BYTES:
                    lines.append(rest)
                    rest = b""
                for line in lines:
                    self._keep(line.decode(errors="replace"))
        if rest:
            self._keep(rest.decode(errors="replace"))

    def clean(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, "***")
        return text

    def close(self) -> None:
        self._file.close()

    def _keep(self, line: str) -> None:
        now = time.monotonic()
        if now - self._second >= 1:
            self._second, self._written = now, 0
        if self._written > BYTES_PER_SECOND:
            return
        text = self.clean(line)[:LINE_BYTES]
        data = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode(errors="replace")
        self._written += len(data)
        self._last.append(text)
        with contextlib.suppress(OSError):
            if self._file.tell() > LOG_BYTES:
                self._file.close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                self._file = self._path.open("ab", buffering=0)
            self._file.write(data)


def forms(values: Iterable[object]) -> list[str]:
    """Each value as it may be written: plain, URL-encoded, base64, hexadecimal; longest first."""
    found: set[str] = set()
    for value in map(str, values):
        if len(value) >= _SHORTEST:
            raw = value.encode()
            found |= {value, quote(value, safe=""), base64.b64encode(raw).decode().rstrip("="), raw.hex()}
    return sorted(found, key=len, reverse=True)
