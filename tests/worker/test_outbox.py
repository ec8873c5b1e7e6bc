"""What a worker sends at once, and what it keeps for the next frame."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from dockyard.engines import worker
from dockyard.engines.frames import Failure, Step, gateway_frames
from dockyard.errors import EngineError
from dockyard.types import Chunk


class _Pair:
    def __init__(self, ours: socket.socket, outbox: worker.Outbox) -> None:
        self.outbox = outbox
        self._ours = ours
        self._frames = gateway_frames()

    def steps(self) -> list[tuple[list[str], list[int]]]:
        """The texts and the ended streams of each frame of the next bytes."""
        found = []
        for step in self._frames.feed(self._ours.recv(1 << 16)):
            assert isinstance(step, Step)
            found.append(([chunk.text for _, chunk in step.chunks], [number for number, _ in step.ended]))
        return found


@pytest.fixture
def pair() -> Iterator[_Pair]:
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    with ours, theirs:
        yield _Pair(ours, worker.Outbox(theirs))


def test_tokens_that_come_fast_go_together_but_beginnings_and_ends_at_once(
    pair: _Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "HOLD", 1000.0)
    pair.outbox.chunk(1, Chunk(text="a"))
    assert pair.steps() == [(["a"], [])]
    pair.outbox.chunk(1, Chunk(text="b"))
    pair.outbox.chunk(1, Chunk(text="c"))
    pair.outbox.chunk(2, Chunk(text="d"))
    assert pair.steps() == [(["b", "c", "d"], [])]
    pair.outbox.chunk(2, Chunk(text="e"))
    pair.outbox.end(1, None)
    assert pair.steps() == [(["e"], [1])]
    pair.outbox.chunk(2, Chunk(text="f"))
    pair.outbox.end(2, Failure.of(EngineError("broke")))
    assert pair.steps() == [(["f"], [2])]


def test_what_was_held_is_sent_though_nothing_follows(pair: _Pair) -> None:
    threading.Thread(target=pair.outbox.pace, daemon=True).start()
    for text in ("a", "b", "c"):
        pair.outbox.chunk(1, Chunk(text=text))
    seen: list[str] = []
    while len(seen) < 3:
        seen += [text for texts, _ in pair.steps() for text in texts]
    assert seen == ["a", "b", "c"]


def test_nothing_is_lost_or_out_of_order_when_many_streams_come_and_pause(
    pair: _Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "HOLD", 0.001)
    threading.Thread(target=pair.outbox.pace, daemon=True).start()

    def produce(stream: int) -> None:
        for number in range(300):
            pair.outbox.chunk(stream, Chunk(text=f"{stream} {number}"))
            threading.Event().wait(0.0004 * (number % (3 + stream)))  # now within the hold, now beyond it

    producers = [threading.Thread(target=produce, args=(stream,)) for stream in range(4)]
    for producer in producers:
        producer.start()
    seen: dict[str, list[int]] = {}
    while sum(map(len, seen.values())) < 4 * 300:
        for texts, _ in pair.steps():
            for text in texts:
                stream, number = text.split()
                seen.setdefault(stream, []).append(int(number))
    for producer in producers:
        producer.join()
    assert all(numbers == list(range(300)) for numbers in seen.values())
