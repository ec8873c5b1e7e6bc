"""Streamed answers from one process that costs little: an epoll loop that looks at the bytes only when all is over."""

from __future__ import annotations

import json
import re
import select
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

CHAT = "/v1/chat/completions"
_TOKENS = re.compile(rb'"completion_tokens": ?(\d+)')
_CACHED = re.compile(rb'"cached_tokens": ?(\d+)')
_SAID = re.compile(rb'"content": ?"[^"]')


@dataclass(frozen=True)
class Streams:
    """What came of several requests asked at once: all seconds, and for each its tokens and seconds to the first."""

    seconds: float
    tokens: tuple[int, ...]
    first: tuple[float, ...]
    cached: tuple[int, ...]

    @property
    def rate(self) -> float:
        """Tokens a second, all streams together."""
        return sum(self.tokens) / self.seconds

    @property
    def ttft(self) -> float:
        """The median of the seconds to a first token."""
        return statistics.median(self.first)


def ask(url: str, bodies: Sequence[dict[str, Any]], *, seconds: float = 300, least: int = 1) -> Streams:
    """Send all bodies at once, streamed and with usage. Raises RuntimeError if one says fewer than ``least`` tokens."""
    where = urlsplit(url)
    poll = select.epoll()
    links: dict[int, socket.socket] = {}
    got: dict[int, list[bytes]] = {}
    when: dict[int, list[float]] = {}
    began = time.monotonic()
    for body in bodies:
        data = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: {where.netloc}\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(data)}\r\nconnection: close\r\n\r\n"
        link = socket.create_connection((where.hostname or "", where.port or 80))
        link.sendall(head.encode() + data)
        poll.register(link, select.EPOLLIN)
        links[link.fileno()], got[link.fileno()], when[link.fileno()] = link, [], []
    while links:
        if time.monotonic() - began > seconds:
            raise RuntimeError(f"{len(links)} of {len(bodies)} streams had not ended after {seconds:.0f} s")
        for number, _ in poll.poll(5):
            block = links[number].recv(1 << 16)
            if block:
                got[number].append(block)
                when[number].append(time.monotonic() - began)
                if not block.endswith(b"0\r\n\r\n"):
                    continue
            links.pop(number).close()
    spent = time.monotonic() - began
    return _read(spent, list(got.values()), list(when.values()), least)


def _read(seconds: float, got: list[list[bytes]], when: list[list[float]], least: int) -> Streams:
    tokens, first, cached = [], [], []
    for blocks, times in zip(got, when, strict=True):
        whole = b"".join(blocks)
        found = _TOKENS.findall(whole)
        if not found or int(found[-1]) < least:
            raise RuntimeError(f"a stream was short: {whole[:300]!r} … {whole[-300:]!r}")
        tokens.append(int(found[-1]))
        first.append(next((at for block, at in zip(blocks, times, strict=True) if _SAID.search(block)), times[-1]))
        cached.append(int((_CACHED.findall(whole) or [b"0"])[-1]))
    return Streams(seconds, tuple(tokens), tuple(first), tuple(cached))
