"""How texts of several requests are put together: every text once, by length, within bounds, nobody starved."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.engines._encoder_batch import BATCH_TOKENS, SIMILAR, Item, Lanes, Work, pick

lengths = st.lists(st.integers(1, 600), max_size=30)


def item(length: int) -> Item:
    return Item([length] * length, [0] * length)


@given(st.lists(lengths, max_size=6), st.integers(1, 32), st.integers(1, 8))
def test_every_text_is_taken_once_in_batches_within_bounds(requests: list[list[int]], most: int, lanes: int) -> None:
    works = [Work([item(length) for length in request]) for request in requests]
    taken: list[tuple[int, int]] = []
    while batch := pick(works, most, lanes):
        found = [len(work.items[place].ids) for work, place in batch]
        assert len(batch) <= most
        assert len(batch) == 1 or max(found) * len(batch) <= BATCH_TOKENS
        assert max(found) <= SIMILAR * min(found)
        taken += [(works.index(work), place) for work, place in batch]
    assert sorted(taken) == [(n, place) for n, request in enumerate(requests) for place in range(len(request))]


@given(st.integers(2, 8), st.integers(1, 200))
def test_no_lane_takes_what_another_could_begin(lanes: int, count: int) -> None:
    batch = pick([Work([item(4)] * count)], 32, lanes)
    assert len(batch) <= -(-count // lanes)


def test_the_request_whose_turn_it_is_comes_first() -> None:
    long, short = Work([item(500)]), Work([item(3)] * 4)
    assert {id(work) for work, _ in pick([long, short], 32, 1)} == {id(long)}
    assert [work for work, _ in pick([short, long], 32, 1)] == [short] * 4


def test_results_come_back_in_the_order_of_the_texts_whoever_shares_a_batch() -> None:
    def double(items: list[Item]) -> Sequence[int]:
        time.sleep(0.001)
        return [2 * each.ids[0] for each in items]

    lanes = Lanes(2, 8, double)
    found: dict[int, object] = {}

    def one(number: int) -> None:
        found[number] = lanes.run([item(1 + (number * place) % 40) for place in range(30)], lambda: False)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    lanes.close()
    assert found == {number: [2 * (1 + (number * place) % 40) for place in range(30)] for number in range(8)}


def test_a_small_request_overtakes_the_rest_of_a_large_one() -> None:
    seen: list[int] = []
    begun = threading.Event()

    def slow(items: list[Item]) -> list[int]:
        seen.extend(each.ids[0] for each in items)
        begun.set()
        time.sleep(0.002)
        return [0] * len(items)

    lanes = Lanes(1, 1, slow)
    large = threading.Thread(target=lanes.run, args=([item(9)] * 200, lambda: False))
    large.start()
    assert begun.wait(5)
    assert lanes.run([item(2)] * 3, lambda: False) == [0] * 3
    assert len(seen) < 100
    large.join(20)
    lanes.close()
    assert sorted(seen) == [2] * 3 + [9] * 200


def test_what_the_runtime_raises_ends_those_requests_and_no_others() -> None:
    def picky(items: list[Item]) -> list[int]:
        if any(each.ids[0] == 13 for each in items):
            raise RuntimeError("no 13")
        return [each.ids[0] for each in items]

    lanes = Lanes(1, 4, picky)
    with pytest.raises(RuntimeError, match="no 13"):
        lanes.run([item(13), item(14)], lambda: False)
    assert lanes.run([item(5)], lambda: False) == [5]
    lanes.close()


def test_a_request_nobody_wants_any_more_leaves_its_lanes() -> None:
    ran = threading.Event()
    done = []

    def slow(items: list[Item]) -> list[int]:
        ran.set()
        time.sleep(0.01)
        done.extend(items)
        return [0] * len(items)

    lanes = Lanes(1, 1, slow)
    assert lanes.run([item(3)] * 500, ran.is_set) is None
    assert lanes.run([item(4)], lambda: False) == [0]
    lanes.close()
    assert len(done) < 100
