"""Turns between keys and lanes, over random traces: nobody is starved, nobody delayed by batch work, no slot idle."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from dockyard.fleet.fairness import FairQueue, Shares
from dockyard.fleet.simulator import Arrival, Model, Simulator, fifo

PATIENCE = 10.0
KEYS = ("one", "two", "three")
BUDGET = 64


@st.composite
def crowds(draw: st.DrawFn, *, batch: bool = False, most: int = 14) -> tuple[dict[str, Model], list[Arrival]]:
    """Few models with few slots, many callers with keys."""
    models = {}
    for name in "abc"[: draw(st.integers(1, 3))]:
        need = draw(st.integers(10, 60))
        models[name] = Model(need, need, draw(st.sampled_from([0.0, 0.5, 3.0])), 0.5, False, draw(st.integers(1, 3)))
    gaps = st.sampled_from([0.0, 0.0, 0.2, 1.0, 4.0])
    now, trace = 0.0, []
    for _ in range(draw(st.integers(1, most))):
        now += draw(gaps)
        lane = draw(st.sampled_from(["interactive", "batch"])) if batch else "interactive"
        hold = draw(st.sampled_from([0.1, 1.0, 3.0]))
        trace.append(Arrival(now, draw(st.sampled_from(sorted(models))), hold, None, draw(st.sampled_from(KEYS)), lane))
    return models, trace


@settings(max_examples=2500, deadline=None)
@given(crowds())
def test_slots_are_never_exceeded_never_idle_and_nobody_waits_for_ever(case) -> None:
    models, trace = case
    outcome = Simulator(BUDGET, models, patience=PATIENCE).run(trace)
    assert outcome.granted == len(trace)
    assert outcome.peak <= BUDGET
    # Each swap serves a turn of patience at most, and ends with the longest request, an unload and a load.
    swap = PATIENCE + 3.0 + 0.5 + 3.0
    service = sum(arrival.hold for arrival in trace)
    assert outcome.longest <= PATIENCE + service + len(models) * swap * (1 + service / PATIENCE)


@settings(max_examples=1500, deadline=None)
@given(crowds(batch=True))
def test_batch_work_never_delays_interactive_work_and_is_all_done(case) -> None:
    models, trace = case
    trace = [msgspec.structs.replace(arrival, key="") for arrival in trace]  # turns between keys change the order
    people = [arrival for arrival in trace if arrival.lane == "interactive"]
    both = Simulator(BUDGET, models, patience=PATIENCE).run(trace)
    assert both.granted == len(trace), "what was preempted is asked for again until it is done"
    if len(models) > 1 and sum(model.need for model in models.values()) > BUDGET:
        return  # batch work may have unloaded what was idle for long
    alone = Simulator(BUDGET, models, patience=PATIENCE).run(people)
    with_batch = [both.waits[n] for n, arrival in enumerate(trace) if arrival.lane == "interactive"]
    for beside, apart in zip(with_batch, _in_order(alone.waits), strict=True):
        # A model may be loaded already, thanks to batch work, or be loading for it.
        assert beside <= apart + 1e-6


def _in_order(waits: dict[int, float]) -> list[float]:
    return [waits[number] for number in sorted(waits)]


@settings(max_examples=1500, deadline=None)
@given(crowds(batch=True))
def test_beside_people_batch_work_takes_free_slots_only(case) -> None:
    models, trace = case
    outcome = Simulator(BUDGET, models, patience=PATIENCE, quiet=-1.0).run(trace)
    assert outcome.granted == len(trace)
    assert outcome.peak <= BUDGET


@settings(max_examples=1500, deadline=None)
@given(
    st.lists(st.sampled_from(KEYS), min_size=1, max_size=60),
    st.lists(st.floats(0.1, 5.0), min_size=60, max_size=60),
    st.integers(1, 4),
)
def test_backlogged_keys_get_equal_shares(keys: list[str], costs: list[float], slots: int) -> None:
    """As long as two keys both wait, what they have had differs by a few requests at most, whatever those cost."""
    queue, guess = FairQueue(), 1.0
    of = dict(enumerate(keys))
    for ticket, key in of.items():
        queue.push(ticket, key, float(ticket))
    had: Counter[str] = Counter()
    running: list[tuple[float, str, float]] = []
    waiting = Counter(keys)
    now = 0.0
    while len(queue) or running:
        while len(queue) and len(running) < slots:
            ticket = queue.pop(guess)
            assert ticket is not None
            key = of[ticket]
            waiting[key] -= 1
            running.append((now + costs[ticket], key, costs[ticket]))
        both = [had[key] + sum(cost for _, k, cost in running if k == key) for key in waiting if waiting[key] > 0]
        if len(both) > 1:
            assert max(both) - min(both) <= (slots + 1) * (5.0 + guess)
        running.sort()
        now, key, cost = running.pop(0)
        queue.shares.settle(key, cost - guess)
        had[key] += cost
    assert sum(had.values()) - sum(costs[: len(keys)]) < 1e-6


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("pqd"), st.sampled_from(KEYS), st.integers(0, 9)), max_size=60))
def test_a_fair_queue_keeps_each_key_in_order_and_forgets_nobody(moves: list[tuple[str, str, int]]) -> None:
    queue, model, number = FairQueue(), {}, 0
    for move, key, which in moves:
        if move == "p":
            queue.push(number, key, float(number))
            model[number] = key
            number += 1
        elif move == "q" and (ticket := queue.pop(1.0)) is not None:
            assert ticket == min(t for t, k in model.items() if k == model[ticket]), "the oldest of its key"
            del model[ticket]
        elif move == "d" and model:
            ticket = sorted(model)[which % len(model)]
            assert queue.discard(ticket)
            del model[ticket]
        assert sorted(queue.tickets) == sorted(model)
        places = [queue.place(ticket) for ticket in model]
        assert all(1 <= place <= len(model) for place in places)
    assert not queue.discard(-1)
    assert queue.place(-1) == 0


def test_one_who_was_away_is_owed_nothing_and_owes_nothing() -> None:
    shares = Shares()
    for _ in range(100):
        shares.advance(shares.reserve("busy", 1.0))
    assert shares.start("new") == shares.clock == 99.0
    shares.reserve("new", 1.0)
    assert shares.start("new") == shares.start("busy") == 100.0


def test_a_key_with_many_models_does_not_push_others_back() -> None:
    models = {name: Model(60, 60, 1.0, 0.0, False, 1) for name in "abcdefgh"}
    greedy = [Arrival(0.0, name, 1.0, None, "greedy") for name in "abcdefg"]
    outcome = Simulator(BUDGET, models, patience=60.0).run([*greedy, Arrival(0.1, "h", 1.0, None, "modest")])
    order = sorted(outcome.started, key=outcome.started.get)
    assert order.index(7) <= 1, "its first load comes right after the greedy one's first"


def test_grouping_by_model_beats_first_come_first_served() -> None:
    models = {name: Model(30, 30, 1.0, 0.2, False, 4) for name in "abcdef"}
    trace = [Arrival(number * 0.05, "abcdef"[number * 7 % 6], 0.5, None, KEYS[number % 3]) for number in range(300)]
    ours, theirs = Simulator(BUDGET, models).run(trace), fifo(BUDGET, models, trace)
    assert ours.granted == theirs.granted == 300
    assert ours.ended < 0.7 * theirs.ended
    assert ours.loads < theirs.loads / 4
