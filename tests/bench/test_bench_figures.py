"""Figures of a run, and the choice among trials: what they say is what their definitions say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.engines import create
from dockyard.hardware import detect
from dockyard.ops.bench.figures import Figures, Objective, Sample, percentile, summarize
from dockyard.ops.bench.picture import svg
from dockyard.ops.bench.tune import Knob, Trial, choose, front, keeps, merged, tune
from dockyard.types import LoadOptions, ModelFacts, ModelFiles

pytestmark = pytest.mark.anyio
OBJECTIVE = Objective(ttft=1.0, tpot=0.1)


def figures(throughput: float, tpot: float, ttft: float = 0.1, failed: int = 0) -> Figures:
    sample = Sample(begun=0.0, arrivals=(ttft, ttft + tpot), tokens=2)
    whole = summarize([sample], 1, OBJECTIVE)
    return Figures(**{**{f: getattr(whole, f) for f in whole.__struct_fields__}, "throughput": throughput,
                      "tpot_p95": tpot, "ttft_p95": ttft, "failed": failed})  # fmt: skip


def trial(label: str, throughput: float, tpot: float, ttft: float = 0.1, failed: int = 0) -> Trial:
    found = figures(throughput, tpot, ttft, failed)
    return Trial(label=label, options=LoadOptions(), one=found, many=found)


def test_the_figures_of_two_answers() -> None:
    samples = [
        Sample(begun=10.0, arrivals=(0.5, 1.0, 1.5), tokens=3, prompt_tokens=7),
        Sample(begun=11.0, arrivals=(2.0, 2.1), tokens=2, prompt_tokens=1),
        Sample(begun=10.5, error="no"),
    ]
    found = summarize(samples, 2, OBJECTIVE)
    assert (found.answers, found.failed, found.tokens, found.prompt_tokens) == (2, 1, 5, 8)
    assert found.seconds == pytest.approx(3.1)
    assert found.throughput == pytest.approx(5 / 3.1)
    assert (found.ttft_p50, found.ttft_p95) == (0.5, 2.0)
    assert (found.tpot_p50, found.tpot_p95) == pytest.approx((0.1, 0.5))
    assert found.itl_p95 == pytest.approx(0.5)
    assert found.goodput == 0.0, "one was late to begin, the other slow to go on"
    assert summarize(samples, 2, Objective(ttft=0.6, tpot=0.6)).goodput == pytest.approx(1 / 3.1)


def test_a_run_without_an_answer() -> None:
    found = summarize([Sample(begun=1.0, error="no")], 1)
    assert (found.answers, found.failed, found.throughput, found.ttft_p95) == (0, 1, 0.0, 0.0)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(1, 100))
def test_a_percentile_is_one_of_the_values_with_enough_at_or_below_it(values: list[float], rank: float) -> None:
    found = percentile(values, rank)
    assert found in values
    assert sum(value <= found for value in values) >= math.ceil(rank / 100 * len(values) - 1e-9)


TRIALS = st.lists(st.tuples(st.floats(1, 1e4), st.floats(1e-4, 1)), min_size=1, max_size=12).map(
    lambda pairs: [trial(str(n), *pair) for n, pair in enumerate(pairs)]
)


@given(TRIALS)
def test_nothing_beats_the_front_and_the_front_beats_the_rest(trials: list[Trial]) -> None:
    found = front(trials)

    def beats(one: Trial, other: Trial) -> bool:
        assert one.many is not None
        assert other.many is not None
        a, b = (one.many.throughput, -one.many.tpot_p95), (other.many.throughput, -other.many.tpot_p95)
        return a[0] >= b[0] and a[1] >= b[1]

    for one in trials:
        if one in found:
            assert not any(beats(other, one) and not beats(one, other) for other in trials)
        else:
            assert any(beats(other, one) for other in found)


@given(TRIALS)
def test_the_choice_is_the_fastest_that_keeps_the_objective(trials: list[Trial]) -> None:
    best = choose(trials, OBJECTIVE)
    good = [one for one in trials if keeps(one, OBJECTIVE)]
    assert best.many is not None
    if good:
        assert best.many.throughput == max(one.many.throughput for one in good if one.many)
    else:
        assert best.many.tpot_p95 == min(one.many.tpot_p95 for one in trials if one.many)


def test_a_trial_that_failed_is_not_chosen() -> None:
    broken = Trial(label="broken", options=LoadOptions(), error="no")
    assert (
        choose([broken, trial("slow", 1, 0.01), trial("lost answers", 100, 0.01, failed=1)], OBJECTIVE).label == "slow"
    )
    assert choose([broken], OBJECTIVE) is broken


def test_flags_of_another_engine_are_left_behind() -> None:
    first = LoadOptions(engine="a", threads=2, flags={"x": 1})
    assert merged(first, LoadOptions(flags={"y": 2})) == LoadOptions(engine="a", threads=2, flags={"x": 1, "y": 2})
    assert merged(first, LoadOptions(engine="b", flags={"y": 2})) == LoadOptions(engine="b", threads=2, flags={"y": 2})


async def test_each_knob_is_turned_on_top_of_the_best_so_far() -> None:
    asked = []

    async def measure(options: LoadOptions) -> tuple[Figures, Figures, int]:
        asked.append(options)
        if options.threads == 3:
            raise RuntimeError("three are too many")
        speed = (options.threads or 1) * (10 if options.engine == "fast" else 1)
        return figures(speed, 0.01), figures(speed, 0.01), 5

    told: list[Trial] = []
    engines = Knob(name="engine", values={n: LoadOptions(engine=n) for n in ("slow", "fast")})
    threads = Knob(name="threads", values={str(n): LoadOptions(threads=n) for n in (1, 2, 3)})
    tuned = await tune([lambda _: [engines], lambda _: [threads]], measure, OBJECTIVE, on_trial=told.append)
    assert tuned.best.options == LoadOptions(engine="fast", threads=2)
    assert [one.label for one in told] == [
        "as it is",
        "engine slow",
        "engine fast",
        "threads 1",
        "threads 2",
        "threads 3",
    ]
    assert told[-1].error == "three are too many"
    assert all(options.engine == "fast" for options in asked[3:])
    picture = svg(tuned, "a <model>")
    assert picture.startswith("<svg")
    assert "a &lt;model&gt;" in picture
    assert "(chosen)" in picture


async def test_no_trial_begins_when_the_time_is_over() -> None:
    async def measure(options: LoadOptions) -> tuple[Figures, Figures, int]:
        return figures(1, 0.01), figures(1, 0.01), 5

    knob = Knob(name="threads", values={"1": LoadOptions(threads=1)})
    tuned = await tune([lambda _: [knob]], measure, OBJECTIVE, seconds=-1)
    assert [one.label for one in tuned.trials] == ["as it is"]


async def test_what_helps_only_together_is_found() -> None:
    facts = ModelFacts(format="gguf", parameters=135_000_000)
    files = ModelFiles(reference="x", digest="sha256:x", directory="", format="gguf", weights=("x.gguf",), facts=facts)
    speeds = {("file", "auto"): 100.0, ("int8", "auto"): 90.0, ("file", "q8"): 95.0, ("int8", "q8"): 140.0}

    async def measure(options: LoadOptions) -> tuple[Figures, Figures, int]:
        chosen = tuple(str(options.flags.get(f"openvino.{name}", default))
                       for name, default in (("weights", "file"), ("precision", "auto")))  # fmt: skip
        found = figures(speeds.get((chosen[0], chosen[1]), 80.0), 0.01)
        return found, found, 0

    knobs = create("openvino").knobs(files, detect())  # type: ignore[attr-defined]
    stage = [Knob(name=name, values=values) for name, values in knobs.items()]
    tuned = await tune([lambda _: stage], measure, OBJECTIVE)
    assert tuned.best.options.flags == {"openvino.weights": "int8", "openvino.precision": "q8"}
