"""Several replicas of a model, models loaded by mode, their configuration, and what can be said of it all."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from fleet_script import MIB, Script, Stage, ask, staged

from dockyard.errors import EngineError, InsufficientMemory, LoadFailed, SettingsError, UnsupportedFormat
from dockyard.fleet import Fleet, tuned
from dockyard.fleet.routing import Seats, route
from dockyard.types import LoadOptions

pytestmark = pytest.mark.anyio
BOTH = LoadOptions(replicas=("quick", "wide"))


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def states(fleet: Fleet) -> dict[str, str]:
    return {row.engine: row.state for row in fleet.models()}


def test_a_lone_stream_gets_the_first_engine_and_a_crowd_the_last() -> None:
    def chosen(*active: int, capacity: int = 4) -> int | None:
        seats = [Seats(name, count, capacity) for name, count in zip(("quick", "wide"), active, strict=True)]
        return route(seats, ("quick", "wide"))

    assert chosen(0, 0) == 0
    assert chosen(1, 0) == 1
    assert chosen(0, 3) == 1, "as long as the crowd works newcomers join it"
    assert chosen(0, 4) == 0, "a free slot is better than none"
    assert chosen(4, 4) is None
    assert route([Seats("wide", 0, 4)], ("quick", "wide")) == 0, "the quick one is not loaded yet"
    assert route([Seats("a", 2, 4), Seats("a", 1, 4), Seats("a", 1, 2)]) == 1, "the least loaded of equals"


async def test_requests_are_spread_by_load_over_two_engines(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script()}) as (fleet, _):
        await fleet.preload("a", BOTH)
        await until(lambda: states(fleet) == {"quick": "ready", "wide": "ready"})
        first, second, third = [await fleet.lease("a") for _ in range(3)]
        assert [lease.model.engine for lease in (first, second, third)] == ["quick", "wide", "wide"]
        first.release()
        second.release()
        fourth = await fleet.lease("a")
        assert fourth.model.engine == "wide"
        third.release()
        fourth.release()
        fifth = await fleet.lease("a")
        assert fifth.model.engine == "quick"
        fifth.release()


async def test_a_crowd_that_comes_at_once_is_not_split_between_the_engines(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script()}) as (fleet, _):
        await fleet.preload("a", BOTH)
        await until(lambda: states(fleet) == {"quick": "ready", "wide": "ready"})
        await ask(fleet, "a")
        leases = await asyncio.gather(*(fleet.lease("a") for _ in range(2)))
        assert [lease.model.engine for lease in leases] == ["wide", "wide"]
        for lease in leases:
            lease.release()
        alone = await fleet.lease("a")
        assert alone.model.engine == "quick"
        alone.release()


async def test_flags_of_one_engine_are_not_for_the_other(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script()}) as (fleet, stage):
        await fleet.preload("a", LoadOptions(replicas=("quick", "wide"), flags={"wide.x": 1, "y": 2}))
        await until(lambda: len(stage.live()) == 2)
        flags = {runner.plan.engine: runner.plan.details.get("flags") for runner in stage.runners}
        assert flags == {"quick": {"y": 2}, "wide": {"x": 1, "y": 2}}


async def test_a_replica_that_loads_slowly_delays_nobody(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(slow={"wide": 0.3})}) as (fleet, stage):
        await fleet.preload("a", BOTH)
        assert await ask(fleet, "a") == "one two three"
        assert states(fleet) == {"quick": "ready", "wide": "loading"}
        await until(lambda: states(fleet)["wide"] == "ready")
        assert fleet.schedule.ledger.charged == 20 * MIB
        assert await fleet.unload("a") == 1
        assert stage.live() == []


async def test_a_replica_that_can_not_be_loaded_leaves_the_work_to_the_other(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(size=60)}) as (fleet, stage):
        await fleet.preload("a", BOTH)
        await ask(fleet, "a")
        await asyncio.sleep(0.05)
        assert stage.live() == ["a"], "there is no memory for two"

    class Halting(Stage):
        def runner(self, engine, files, plan, *more, **named):
            made = super().runner(engine, files, plan, *more, **named)
            made._script = Script(fails=LoadFailed("no such kernel")) if plan.engine == "quick" else made._script
            return made

    async with staged(tmp_path / "two", {"a": Script()}, stage=Halting) as (fleet, _):
        await fleet.preload("a", BOTH)
        lease = await fleet.lease("a")
        assert lease.model.engine == "wide"
        assert states(fleet)["wide"] == "ready"
        lease.release()


async def test_copies_of_one_engine_share_the_cores_and_a_crash_of_one_spares_the_other(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script()}) as (fleet, stage):
        await fleet.preload("a", LoadOptions(replicas=("quick", "quick")))
        await until(lambda: len(stage.live()) == 2)
        assert [runner.plan.threads for runner in stage.runners] == [1, 1]
        leases = [await fleet.lease("a") for _ in range(4)]
        assert sorted(lease.model.pid or 0 for lease in leases) == [1000, 1000, 1001, 1001]
        stage.runners[0].crash()
        await until(lambda: sum(row.restarts for row in fleet.models()) == 1)
        for lease in leases:
            lease.release()
        assert await ask(fleet, "a") == "one two three"
        await until(lambda: len(stage.live()) == 2)


async def test_a_model_is_loaded_once_for_each_mode_that_matters(tmp_path: Path) -> None:
    models = {"apart": Script(embeds="apart"), "together": Script(embeds="together"), "words": Script()}
    async with staged(tmp_path, models) as (fleet, stage):
        for name in ("apart", "together"):
            for kind in ("chat", "embed", "rerank", "tokenize", "complete"):
                (await fleet.lease(name, kind)).release()
        loaded = [(runner.name, runner.plan.details.get("mode")) for runner in stage.runners]
        assert loaded == [("apart", "generate"), ("apart", "embed"), ("apart", "rerank"), ("together", None)]
        with pytest.raises(UnsupportedFormat):
            await fleet.lease("words", "embed")
        assert await fleet.unload("apart") == 3


async def test_configuration_is_merged_and_survives_restarts(tmp_path: Path) -> None:
    models = {"a": Script(embeds="apart")}
    async with staged(tmp_path, models) as (fleet, _):
        assert await fleet.configuration("a") is None
        await fleet.configure("a", LoadOptions(context=1024, flags={"x": 1, "y": 2}))
        merged = await fleet.configure("a", LoadOptions(keep_alive=60.0, flags={"y": None}))
        assert merged == LoadOptions(context=1024, keep_alive=60.0, flags={"x": 1})
        await fleet.configure("a", LoadOptions(mode="embed", context=512))
    async with staged(tmp_path, models) as (fleet, stage):
        (await fleet.lease("a")).release()
        (await fleet.lease("a", "embed")).release()
        assert [runner.plan.context for runner in stage.runners] == [1024, 512]
        assert await fleet.configuration("a") == merged
        assert [entry.options.mode for entry in fleet.configurations()] == ["generate", "embed"]
        stage.scripts["a"].digest = "sha256:newer"
        (tmp_path / "store" / "index.json").write_text("{}")
        assert await fleet.configuration("a") == merged, "the name has moved, and what was set for it with it"
        (tmp_path / "models.json").write_text("{")
        with pytest.raises(SettingsError, match=r"models.json"):
            await fleet.configuration("a")


async def test_a_measured_choice_counts_where_nobody_says_otherwise(tmp_path: Path) -> None:
    tuned.write(tmp_path, "sha256:a", LoadOptions(context=2048, parallel=7))
    async with staged(tmp_path, {"a": Script()}) as (fleet, stage):
        await ask(fleet, "a")
        assert (stage.of("a").plan.context, stage.of("a").plan.parallel) == (2048, 7)
        await fleet.unload()
        await fleet.configure("a", LoadOptions(context=512))
        await ask(fleet, "a")
        assert (stage.of("a").plan.context, stage.of("a").plan.parallel) == (512, 2)
    tuned.forget(tmp_path, "sha256:a")
    assert tuned.read(tmp_path, "sha256:a") is None


async def test_keep_alive_of_a_request_unloads_keeps_or_pins(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(size=60), "b": Script(size=60)}) as (fleet, stage):
        lease = await fleet.lease("a", keep_alive=0)
        lease.release()
        await until(lambda: stage.live() == [])
        (await fleet.lease("a", keep_alive=-1)).release()
        with pytest.raises(InsufficientMemory, match="pinned models leave"):
            await fleet.lease("b")
        (await fleet.lease("a", keep_alive=0.1)).release()
        await until(lambda: stage.live() == [])
        assert await ask(fleet, "b") == "one two three"
        (await fleet.lease("b", keep_alive=1000.0)).release()
        (await fleet.lease("b", "complete")).release()
        expires = fleet.models()[0].expires_at
        assert expires is not None
        assert expires > time.time() + 900, "it holds until another is given, or the model is gone"


async def test_models_that_never_idle_out_still_make_room(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(size=60), "b": Script(size=60)}, idle_seconds=-1) as (fleet, stage):
        for name in ("a", "b", "a"):
            assert await ask(fleet, name) == "one two three"
            assert [row.expires_at for row in fleet.models() if row.state == "ready"] == [None]
        assert len(stage.live()) == 1


async def test_a_keep_alive_without_the_right_to_it_leaves_a_pinned_model_pinned(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(size=60), "b": Script(size=60)}) as (fleet, stage):
        (await fleet.lease("a", keep_alive=-1)).release()
        for kind, seconds in (("chat", 0.01), ("chat", 0), ("complete", 0.01)):
            (await fleet.lease("a", kind, keep_alive=seconds, unpin=False)).release()
        assert fleet.models()[0].expires_at is None
        with pytest.raises(InsufficientMemory, match="pinned models leave"):
            await fleet.lease("b")
        (await fleet.lease("a", keep_alive=0.01)).release()
        await until(lambda: stage.live() == [])
        await fleet.preload("a", pin=True)
        (await fleet.lease("a", keep_alive=0, unpin=False)).release()
        assert fleet.models()[0].expires_at is None


async def test_a_replica_that_fails_every_request_is_loaded_anew(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(rejects=EngineError("the cache is corrupt"))}) as (fleet, stage):
        for _ in range(3):
            with pytest.raises(EngineError, match="corrupt"):
                await ask(fleet, "a")
        await until(lambda: len(stage.runners) == 2 and fleet.models()[0].state == "ready")
        assert fleet.models()[0].restarts == 1
        stage.scripts["a"].rejects = None
        assert await ask(fleet, "a") == "one two three"


async def test_a_model_with_a_limit_of_its_own_is_planned_within_it(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(size=50, per_token=0.01)}) as (fleet, stage):
        await fleet.configure("a", LoadOptions(memory=60 * MIB, cpus=1.5))
        await ask(fleet, "a")
        assert (stage.of("a").plan.context, stage.of("a").plan.threads) == (512, 1)
        await fleet.unload()
        await fleet.configure("a", LoadOptions(memory=40 * MIB))
        with pytest.raises(InsufficientMemory, match=r"a needs \d+ MiB, and its own limit is 40 MiB"):
            await ask(fleet, "a")


async def test_explanations_follow_what_would_happen(tmp_path: Path) -> None:
    models = {"a": Script(size=60), "b": Script(size=50), "big": Script(size=200)}
    async with staged(tmp_path, models) as (fleet, stage):
        found = await fleet.explain("a")
        assert (found.outcome, found.engine, found.kind, found.mode) == ("load", "scripted", "chat", "generate")
        assert found.refused == {"another": "it reads no scripts"}
        assert (found.replicas[0].context, found.replicas[0].predicted.weights) == (8192, 60 * MIB)
        assert (found.budget, found.free, found.resident) == (100 * MIB, 100 * MIB, ())
        assert stage.runners == []
        leases = [await fleet.lease("a"), await fleet.lease("a")]
        found = await fleet.explain("a")
        assert (found.outcome, found.place) == ("queue", 1)
        found = await fleet.explain("b")
        assert found.outcome == "wait"
        assert "memory" in found.sentence
        for lease in leases:
            lease.release()
        assert (await fleet.explain("a")).outcome == "ready"
        found = await fleet.explain("b")
        assert (found.outcome, found.evicts, found.free) == ("evict", ("a",), 40 * MIB)
        found = await fleet.explain("big")
        assert found.outcome == "refuse"
        assert "200 MiB" in found.sentence
        assert stage.live() == ["a"]
