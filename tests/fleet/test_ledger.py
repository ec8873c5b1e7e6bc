from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.fleet.ledger import Ledger
from dockyard.fleet.restarts import RestartPolicy, Restarts


def test_a_prediction_becomes_a_measurement_but_never_less_than_what_is_certain() -> None:
    ledger = Ledger(100)
    ledger.reserve("a", 60, floor=40)
    assert (ledger.of("a"), ledger.free) == (60, 40)
    assert ledger.correct("a", 50) == 50
    assert ledger.correct("a", 10) == 40
    assert ledger.correct("a", 130) == 130
    assert ledger.free == -30
    assert ledger.release("a") == 130
    assert ledger.release("a") == 0
    assert (ledger.charged, len(ledger)) == (0, 0)


def test_what_does_not_fit_or_is_there_already_is_not_reserved() -> None:
    ledger = Ledger(100)
    ledger.reserve("a", 60)
    with pytest.raises(ValueError, match="needs 41 bytes and 40 are free"):
        ledger.reserve("b", 41)
    with pytest.raises(ValueError, match="holds memory already"):
        ledger.reserve("a", 1)
    assert ledger.charged == 60


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 80)), max_size=40))
def test_reservations_never_exceed_the_budget(calls: list[tuple[str, int]]) -> None:
    ledger = Ledger(100)
    for key, size in calls:
        if ledger.of(key):
            ledger.release(key)
        else:
            try:
                ledger.reserve(key, size)
            except ValueError:
                ledger.release(key)
        assert 0 <= ledger.charged <= 100


def test_back_off_doubles_up_to_a_cap_then_the_circuit_opens() -> None:
    restarts = Restarts(RestartPolicy(base=1.0, cap=3.0, breaker=4, cooldown=20.0, longest=50.0))
    assert [restarts.failed(0.0, "x") for _ in range(3)] == [1.0, 2.0, 3.0]
    assert restarts.open_for(0.0) == 0.0
    assert restarts.failed(100.0, "again") == 20.0
    assert restarts.open_for(105.0) == 15.0
    assert restarts.open_for(120.0) == 0.0, "one try is let through"
    assert restarts.failed(121.0, "again") == 40.0
    assert restarts.failed(170.0, "again") == 50.0
    restarts.progressed()
    assert restarts.open_for(171.0) == 0.0
    assert restarts.failed(200.0, "x") == 1.0
