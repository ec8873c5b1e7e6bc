"""Bookkeeping of which blocks of a blob are here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.artifact.registry.ranges import BlockMap, missing, piece_size, pieces
from dockyard.errors import InvalidRequest

SIZES = st.integers(0, 5000)
BLOCKS = st.integers(1, 400)


@given(SIZES, BLOCKS, st.data(), st.integers(1, 1000))
def test_pieces_are_exactly_what_is_missing(size: int, block: int, data: st.DataObject, piece: int) -> None:
    done = data.draw(st.lists(st.booleans(), min_size=-(-size // block), max_size=-(-size // block)))
    here = [done[at // block] for at in range(size)]
    for start, end in pieces(missing([int(one) for one in done], size, block), piece * block):
        assert start < end <= size
        assert start % block == 0
        assert end - start <= piece * block
        assert not any(here[start:end])
        here[start:end] = [True] * (end - start)
    assert all(here)


@given(SIZES, BLOCKS, st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), max_size=10))
def test_a_map_claims_no_byte_that_was_not_written(size: int, block: int, writes: list[tuple[int, int]]) -> None:
    blocks = BlockMap(size, block=block)
    written: set[int] = set()
    for start, length in writes:
        start, end = min(start, size), min(start + length, size)
        blocks.written(start, end)
        written |= set(range(start, end))
    absent = set(range(size)) - {at for a, b in missing(blocks.done, size, block) for at in range(a, b)}
    assert absent <= written
    front = blocks.frontier()
    assert set(range(front)) <= written
    assert blocks.bytes_done() == len(absent)


@given(st.integers(1, 2**45), st.integers(2, 64))
def test_a_piece_is_whole_blocks_and_of_a_sensible_size(size: int, connections: int) -> None:
    found = piece_size(size, connections)
    assert found % (1 << 20) == 0
    assert 8 << 20 <= found <= 64 << 20
    assert size <= piece_size(size, 1) < size + (1 << 20)


def test_a_map_survives_its_process(tmp_path: Path) -> None:
    path = tmp_path / "map"
    first = BlockMap(1000, path=path, block=100)
    first.written(0, 200)
    first.written(900, 1000)
    first.close()
    again = BlockMap(1000, path=path, block=100)
    assert list(missing(again.done, 1000, 100)) == [(200, 900)]
    assert again.frontier() == 200
    again.close(remove=True)
    assert not path.exists()


@pytest.mark.parametrize("damage", [b"", b"junk", b"dockyard blocks 1 999 100\n\1\1\1"])
def test_a_map_of_something_else_counts_for_nothing(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "map"
    path.write_bytes(damage)
    found = BlockMap(1000, path=path, block=100)
    assert found.bytes_done() == 0
    found.written(0, 100)
    found.close()
    assert BlockMap(1000, path=path, block=100).bytes_done() == 100


@given(st.binary(max_size=60), st.integers(0, 60))
def test_a_damaged_map_never_breaks(tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int) -> None:
    path = tmp_path_factory.mktemp("map") / "map"
    BlockMap(1000, path=path, block=100).close()
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), junk, at)
    found = BlockMap(1000, path=path, block=100)
    assert set(found.done) <= {0, 1}
    assert len(found.done) == 10
    found.close()


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        BlockMap(-1)
