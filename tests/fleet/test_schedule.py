"""Random traces against the schedule: no over-commit, no starvation, nothing busy evicted, work conserved."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dockyard.fleet import admission
from dockyard.fleet.commands import Evict, Grant, Load, Refuse
from dockyard.fleet.pool import Replica
from dockyard.fleet.schedule import Schedule
from dockyard.fleet.simulator import Arrival, Model, Simulator

KEYS = "abcdef"


def ask(schedule: Schedule, ticket: int, model: str, need: int, now: float) -> None:
    schedule.ask(ticket, schedule.pool(model, [Replica(key=model, need=need)]), now)


def recall(schedule: Schedule, model: str, need: int, now: float) -> None:
    schedule.loads.recall(schedule.pool(model, [Replica(key=model, need=need)]), now)


def give_back(schedule: Schedule, model: str, now: float) -> None:
    resident = schedule.residents[model]
    schedule.done(resident, "", 2.0, 1.0, now)
    schedule.release(resident, now)


sizes = st.integers(1, 60)


@st.composite
def traces(draw: st.DrawFn, *, exact: bool, giving_up: bool = False) -> tuple[dict[str, Model], list[Arrival]]:
    models = {}
    for key in KEYS[: draw(st.integers(1, 6))]:
        need = draw(sizes)
        actual = need if exact else max(1, need + draw(st.integers(-20, 20)))
        load = draw(st.sampled_from([0.0, 0.5, 2.0, 8.0]))
        models[key] = Model(need, actual, load, draw(st.sampled_from([0.0, 0.5])))
    gaps = st.sampled_from([0.0, 0.1, 1.0, 5.0, 30.0])
    now, arrivals = 0.0, []
    for _ in range(draw(st.integers(1, 20))):
        now += draw(gaps)
        patience = draw(st.sampled_from([None, 0.5, 5.0])) if giving_up else None
        arrivals.append(Arrival(now, draw(st.sampled_from(sorted(models))), draw(gaps), patience))
    return models, arrivals


@settings(max_examples=1000, deadline=None)
@given(traces(exact=True))
def test_nothing_that_must_not_happen_happens(case: tuple[dict[str, Model], list[Arrival]]) -> None:
    models, trace = case
    simulator = Simulator(64, models, patience=10.0)
    outcome = simulator.run(trace)
    assert outcome.refused == 0
    longest = 2 * 8.0 + 30.0 + 0.5
    assert outcome.longest <= 10.0 + len(models) * longest


@settings(max_examples=800, deadline=None)
@given(traces(exact=False))
def test_wrong_predictions_are_corrected_and_starve_nobody(case: tuple[dict[str, Model], list[Arrival]]) -> None:
    models, trace = case
    outcome = Simulator(64, models).run(trace)
    impossible = {key for key, model in models.items() if max(model.need, model.actual) > 64}
    assert outcome.refused <= sum(arrival.model in impossible for arrival in trace)


@settings(max_examples=500, deadline=None)
@given(traces(exact=True, giving_up=True))
def test_callers_who_give_up_leave_nothing_behind(case: tuple[dict[str, Model], list[Arrival]]) -> None:
    models, trace = case
    Simulator(64, models).run(trace)


def test_a_model_that_is_never_idle_yields_after_the_bound() -> None:
    models = {"busy": Model(60, 60), "other": Model(60, 60)}
    trace = [Arrival(t / 2, "busy", 1.2) for t in range(200)] + [Arrival(10.0, "other", 1.0)]
    simulator = Simulator(64, models, patience=10.0)
    outcome = simulator.run(trace)
    assert outcome.granted == 201
    assert outcome.longest < 10 + 2 * (1.2 + 2 + 0.5) + 2
    assert outcome.loads == 3


def test_requests_for_a_loaded_model_go_first_which_saves_swaps() -> None:
    models = {"a": Model(60, 60, load=5.0), "b": Model(60, 60, load=5.0)}
    trace = sorted(
        (Arrival(t * 0.5, key, 2.0) for t in range(60) for key in "ab"), key=lambda arrival: (arrival.at, arrival.model)
    )
    grouped = Simulator(64, models, patience=10.0).run(trace)
    assert grouped.loads <= 6, "one load for each request would be 120"


def test_least_recently_used_of_the_idle_is_evicted_and_no_more_than_needed() -> None:
    schedule = Schedule(100)
    for now, key in enumerate("abc"):
        ask(schedule, now, key, 33, float(now))
        assert schedule.step(float(now)) == [Load(key)]
        schedule.loads.loaded(key, 33, 1.0, 0.0)
        assert schedule.step(float(now)) == [Grant(now, key, 2.0)]
        give_back(schedule, key, float(now))
    assert schedule.admit(schedule.pool("a"), "", 10.0)
    give_back(schedule, "a", 10.0)
    ask(schedule, 9, "d", 30, 11.0)
    assert schedule.step(11.0) == [Evict("b")]
    assert not schedule.admit(schedule.pool("b"), "", 11.0), "what leaves gets nothing new"
    schedule.gone("b", 3.0)
    assert schedule.step(11.5) == [Load("d")]


def test_a_pinned_model_stays_and_its_memory_is_named_in_the_refusal() -> None:
    schedule = Schedule(100)
    ask(schedule, 1, "a", 70, 0.0)
    schedule.step(0.0)
    schedule.loads.loaded("a", 70, 1.0, 0.0)
    schedule.step(1.0)
    give_back(schedule, "a", 1.0)
    schedule.loads.pin("a")
    ask(schedule, 2, "b", 40, 2.0)
    assert schedule.step(2.0) == [Refuse(2, "b", admission.Refuse(40, 30, "pinned"))]
    schedule.loads.pin("a", False)
    ask(schedule, 3, "b", 40, 3.0)
    assert schedule.step(3.0) == [Evict("a")]


def test_memory_that_other_processes_hold_is_not_given_away() -> None:
    schedule = Schedule(100)
    schedule.loads.ceiling = 50
    ask(schedule, 1, "a", 60, 0.0)
    assert schedule.step(0.0) == [Refuse(1, "a", admission.Refuse(60, 50, "machine"))]
    ask(schedule, 2, "b", 50, 0.0)
    assert schedule.step(0.0) == [Load("b")]


def test_a_load_that_took_more_than_predicted_makes_room_or_waits_again_with_its_true_size() -> None:
    schedule = Schedule(100)
    for key in "ab":
        ask(schedule, ord(key), key, 45, 0.0)
        schedule.step(0.0)
    schedule.loads.loaded("a", 45, 1.0, 0.0)
    assert schedule.step(1.0) == [Grant(ord("a"), "a", 2.0)]
    schedule.loads.loaded("b", 70, 1.0, 0.0)
    assert schedule.step(2.0) == [Evict("b")], "a is in use, so the newcomer goes"
    schedule.gone("b", 3.0)
    assert schedule.step(3.0) == []
    give_back(schedule, "a", 4.0)
    assert schedule.step(4.0) == [Evict("a")]
    schedule.gone("a", 3.0)
    assert schedule.step(5.0) == [Load("b")]
    schedule.loads.loaded("b", 70, 1.0, 0.0)
    assert schedule.step(6.0) == [Grant(ord("b"), "b", 2.0)]


def test_while_people_are_about_batch_work_takes_few_slots_and_later_all() -> None:
    schedule = Schedule(100, quiet=0.5)
    ask(schedule, 1, "a", 60, 0.0)
    schedule.step(0.0)
    schedule.loads.loaded("a", 60, 1.0, 0.0, capacity=32)
    schedule.step(0.0)
    give_back(schedule, "a", 1.0)
    for ticket in range(2, 42):
        schedule.ask(ticket, schedule.pool("a"), 1.0, lane="batch")
    assert schedule.next_wake(1.0) == 1.5
    assert [type(each) for each in schedule.step(1.5)] == [Grant] * 2, "one slot of sixteen"
    assert schedule.next_wake(1.5) == 11.0
    assert schedule.finish(2, 1.6)
    assert len(schedule.step(1.6)) == 1
    assert len(schedule.step(11.0)) == 30


def test_a_restart_that_nobody_waits_for_takes_only_free_memory_and_waits_out_its_back_off() -> None:
    schedule = Schedule(100)
    recall(schedule, "a", 60, 0.0)
    schedule.loads.back_off("a", 5.0)
    assert schedule.step(1.0) == []
    assert schedule.next_wake(1.0) == 5.0
    assert schedule.step(5.0) == [Load("a")]
    schedule.loads.loaded("a", 60, 1.0, 0.0)
    recall(schedule, "b", 60, 6.0)
    assert schedule.step(6.0) == []
    assert not schedule.loads.is_wanted("b")


def test_a_leak_is_answered_by_evicting_the_idle() -> None:
    schedule = Schedule(100)
    for key in "ab":
        ask(schedule, ord(key), key, 40, 0.0)
        schedule.step(0.0)
        schedule.loads.loaded(key, 40, 1.0, 0.0)
        schedule.step(0.0)
    give_back(schedule, "a", 1.0)
    assert schedule.loads.measured("b", 80)
    assert schedule.step(2.0) == [Evict("a")]
    assert schedule.residents["b"].busy == 1


def test_waiters_learn_their_place_and_an_estimate() -> None:
    schedule = Schedule(100, patience=10.0)
    ask(schedule, 1, "a", 90, 0.0)
    schedule.step(0.0)
    schedule.loads.loaded("a", 90, 4.0, 0.0)
    schedule.step(0.0)
    ask(schedule, 2, "b", 90, 1.0)
    ask(schedule, 3, "c", 90, 2.0)
    schedule.step(2.0)
    first, second = schedule.loads.waiting("b"), schedule.loads.waiting("c")
    assert first is not None
    assert second is not None
    assert (first.place, second.place) == (1, 2)
    assert 0 < first.estimate < second.estimate
    assert "memory" in first.reason
