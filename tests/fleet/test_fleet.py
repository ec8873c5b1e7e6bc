"""The fleet over scripted models: who gets loaded, evicted, refused, restarted and drained."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest
from fleet_script import MIB, REQUEST, Script, Stage, ask, staged

from dockyard.errors import (
    DockyardError,
    InsufficientMemory,
    InvalidRequest,
    LoadFailed,
    ModelNotFound,
    Overloaded,
    Preempted,
    UnsupportedFormat,
    WorkerCrashed,
)
from dockyard.types import LoadOptions

pytestmark = pytest.mark.anyio


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_many_who_ask_at_once_cause_one_load(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(load=0.05)}) as (fleet, stage):
        answers = await asyncio.gather(*(ask(fleet, "a") for _ in range(50)))
        assert set(answers) == {"one two three"}
        assert len(stage.runners) == 1
        (row,) = fleet.models()
        assert (row.state, row.active, row.queued, row.measured) == ("ready", 0, 0, 10 * MIB)


async def test_a_lease_of_a_loaded_model_costs_microseconds(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script()}) as (fleet, _):
        await ask(fleet, "a")
        begun = time.process_time()
        for _ in range(5000):
            (await fleet.lease("a")).release()
        assert (time.process_time() - begun) / 5000 < 50e-6


async def test_the_least_recently_used_makes_room_and_nothing_busy_does(tmp_path: Path) -> None:
    models = {name: Script(size=45) for name in "abc"}
    async with staged(tmp_path, models) as (fleet, stage):
        await ask(fleet, "a")
        held = await fleet.lease("b")
        await ask(fleet, "a")
        await ask(fleet, "c")
        assert sorted(stage.live()) == ["b", "c"], "b was used less recently, but it is in use"
        also = await fleet.lease("c")
        waiting = asyncio.create_task(fleet.lease("a"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        row = next(row for row in fleet.models() if row.reference == "a")
        assert (row.state, row.queued) == ("loading", 1)
        assert "waiting for memory" in row.reason
        held.release()
        lease = await waiting
        assert sorted(stage.live()) == ["a", "c"]
        lease.release()
        also.release()


async def test_what_can_never_fit_is_refused_with_the_numbers(tmp_path: Path) -> None:
    async with staged(tmp_path, {"big": Script(size=130), "a": Script()}) as (fleet, stage):
        await ask(fleet, "a")
        with pytest.raises(InsufficientMemory, match=r"big needs 130 MiB.*weights 130 MiB.*may take 100 MiB") as caught:
            await fleet.lease("big")
        assert "memory_budget" in (caught.value.hint or "")
        assert stage.live() == ["a"], "nothing was evicted for it"
        assert await ask(fleet, "a") == "one two three"


async def test_a_context_left_to_the_engine_is_cut_to_fit_and_said_so(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(size=50, per_token=0.01)}) as (fleet, _):
        lease = await fleet.lease("a")
        assert lease.model.context == 4096
        assert "cut to a context of 4096 tokens" in lease.model.reason
        lease.release()
        with pytest.raises(InsufficientMemory, match="context 8192"):
            await fleet.preload("a", LoadOptions(context=8192))


async def test_who_waits_too_long_is_told_place_and_time(tmp_path: Path) -> None:
    models = {"a": Script(size=90), "b": Script(size=90)}
    async with staged(tmp_path, models, queue_seconds=0.1) as (fleet, _):
        held = await fleet.lease("a")
        with pytest.raises(Overloaded, match=r"not loaded within 0.1 s: waiting for memory.*place 1") as caught:
            await fleet.lease("b")
        assert (caught.value.retry_after or 0) >= 1
        assert not fleet.schedule.wanted
        held.release()


async def test_a_busy_model_yields_to_one_that_waited_long(tmp_path: Path) -> None:
    models = {"a": Script(size=90, step=0.01), "b": Script(size=90)}
    async with staged(tmp_path, models, queue_seconds=2.0) as (fleet, stage):
        fleet.schedule.loads.patience = 0.2

        async def crowd() -> None:
            while not done.is_set():
                await ask(fleet, "a")

        done = asyncio.Event()
        crowds = [asyncio.create_task(crowd()) for _ in range(4)]
        await asyncio.sleep(0.05)
        assert await ask(fleet, "b") == "one two three"
        done.set()
        await asyncio.gather(*crowds)
        assert [runner.name for runner in stage.runners].count("b") == 1


async def test_cancelled_waits_leave_nothing(tmp_path: Path) -> None:
    chance = random.Random(5)
    models = {name: Script(size=60, load=0.002) for name in "abc"}
    async with staged(tmp_path, models) as (fleet, _):
        tasks = [asyncio.create_task(ask(fleet, chance.choice("abc"))) for _ in range(200)]
        while not all(task.done() for task in tasks):
            chance.choice(tasks).cancel()
            await asyncio.sleep(0.0005)
        assert all(task.cancelled() or task.result() for task in tasks)
        assert not fleet.schedule.wanted
        assert all(resident.busy == 0 for resident in fleet.schedule.residents.values())


async def test_a_crash_reaches_its_clients_and_the_next_is_served(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(step=0.02)}) as (fleet, stage):
        lease = await fleet.lease("a")
        stream = lease.generate(REQUEST)
        await anext(stream)
        stage.of("a").crash()
        with pytest.raises(WorkerCrashed):
            await anext(stream)
        await until(lambda: fleet.models()[0].state == "restarting" or fleet.models()[0].restarts)
        with pytest.raises(WorkerCrashed, match="before the request began"):
            lease.generate(REQUEST)
        assert await ask(fleet, "a") == "one two three"
        lease.release()
        lease.release()
        (row,) = fleet.models()
        assert (row.restarts, row.state, row.active) == (1, "ready", 0)
        assert len(stage.runners) == 2


async def test_a_model_whose_process_just_died_is_waited_for(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script()}) as (fleet, stage):
        await ask(fleet, "a")
        stage.of("a").crash()
        assert await ask(fleet, "a") == "one two three", "nobody had been told of the crash"
        assert len(stage.runners) == 2


async def test_a_model_that_crashes_again_and_again_is_refused_with_its_last_words(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script()}) as (fleet, stage):
        for count in range(1, 4):
            lease = await fleet.lease("a")
            stage.of("a").crash()
            lease.release()
            await until(lambda: fleet.models()[0].restarts == count)  # noqa: B023
        assert fleet.models()[0].state == "failed"
        with pytest.raises(WorkerCrashed, match=r"failed 3 times in a row.*SIGSEGV\n.*\n*segmentation") as caught:
            await fleet.lease("a")
        assert (caught.value.retry_after or 0) > 0
        await asyncio.sleep(0.25)
        assert await ask(fleet, "a") == "one two three", "after the cooldown one try is let through"
        stage.of("a").crash()
        await until(lambda: fleet.models()[0].restarts == 4)
        assert await ask(fleet, "a") == "one two three", "an answer ended the row of failures"


@pytest.mark.parametrize("failure", [LoadFailed("no such tensor"), OSError("disk on fire")])
async def test_a_load_that_fails_fails_all_who_wait(tmp_path: Path, failure: Exception) -> None:
    async with staged(tmp_path, {"a": Script(load=0.02, fails=failure)}) as (fleet, stage):
        results = await asyncio.gather(*(ask(fleet, "a") for _ in range(5)), return_exceptions=True)
        assert all(isinstance(result, LoadFailed) and str(failure) in str(result) for result in results)
        assert len(stage.runners) == 1
        assert fleet.schedule.ledger.charged == 0
        stage.scripts["a"].fails = None
        assert await ask(fleet, "a") == "one two three"


async def test_idle_models_are_unloaded_but_not_pinned_or_kept_ones(tmp_path: Path) -> None:
    models = {name: Script() for name in ("a", "b", "kept", "pinned", "at-once")}
    async with staged(tmp_path, models, idle_seconds=0.15) as (fleet, stage):
        await fleet.preload("kept", LoadOptions(keep_alive=-1))
        await fleet.preload("pinned", pin=True)
        await fleet.preload("at-once", LoadOptions(keep_alive=0))
        await ask(fleet, "at-once")
        held = await fleet.lease("b")
        await ask(fleet, "a")
        expires = {row.reference: row.expires_at for row in fleet.models()}
        assert expires["a"] is not None
        assert expires["b"] is None
        assert expires["pinned"] is None
        await until(lambda: len(stage.live()) == 3)
        assert sorted(stage.live()) == ["b", "kept", "pinned"]
        held.release()
        await until(lambda: len(stage.live()) == 2)


async def test_unload_lets_requests_finish_and_counts(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(step=0.02), "b": Script()}) as (fleet, stage):
        asked = asyncio.create_task(ask(fleet, "a"))
        await ask(fleet, "b")
        await until(lambda: stage.runners and "a" in stage.live())
        assert await fleet.unload("a") == 1
        assert await asked == "one two three"
        assert stage.live() == ["b"]
        assert await fleet.unload("a") == 0
        assert await fleet.unload() == 1
        assert fleet.models() == []
        with pytest.raises(ModelNotFound):
            await fleet.unload("nothing")


async def test_unload_does_not_wait_for_ever(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(step=30.0)}) as (fleet, stage):
        lease = await fleet.lease("a")
        assert await fleet.unload("a", drain=0.05) == 1
        assert stage.live() == []
        lease.release()
        assert await fleet.lease("a")


async def test_options_of_a_preload_hold_for_later_loads(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script()}) as (fleet, stage):
        await ask(fleet, "a")
        await fleet.preload("a", LoadOptions(context=1024))
        assert [runner.plan.context for runner in stage.runners] == [8192, 1024]
        await fleet.preload("a", LoadOptions(context=1024))
        assert len(stage.runners) == 2
        await fleet.unload("a")
        await ask(fleet, "a")
        assert stage.of("a").plan.context == 1024


async def test_options_that_a_model_cannot_be_loaded_with_are_not_kept(tmp_path: Path) -> None:
    class Strict(Stage):
        def plan(self, name, files, options, settings, hardware):
            if (options.context or 0) > 8192:
                raise InvalidRequest("it was trained on 8192 tokens", param="context")
            return super().plan(name, files, options, settings, hardware)

    async with staged(tmp_path, {"a": Script(per_token=0.02)}, stage=Strict) as (fleet, stage):
        await fleet.preload("a", LoadOptions(context=1024))
        with pytest.raises(InvalidRequest, match="trained on 8192"):
            await fleet.preload("a", LoadOptions(context=10_000))
        await ask(fleet, "a")
        assert len(stage.runners) == 1, "it was not unloaded for what can't be"
        with pytest.raises(InsufficientMemory):
            await fleet.preload("a", LoadOptions(context=8000))
        stage.scripts["a"].fails = LoadFailed("told to")
        with pytest.raises(LoadFailed):
            await fleet.preload("a", LoadOptions(context=2048))
        stage.scripts["a"].fails = None
        await asyncio.sleep(0.1)
        await ask(fleet, "a")
        assert stage.of("a").plan.context == 1024


async def test_unknown_names_say_what_to_do(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script()}) as (fleet, _):
        with pytest.raises(ModelNotFound) as caught:
            await fleet.lease("b")
        assert "did you mean 'a'" in (caught.value.hint or "")
        assert "dockyard pull b" in (caught.value.hint or "")
        with pytest.raises(UnsupportedFormat):
            await fleet.lease("a", "embed")


async def test_a_name_that_moved_means_the_new_model(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(digest="sha256:1")}) as (fleet, stage):
        await ask(fleet, "a")
        stage.scripts["a"].digest = "sha256:2"
        await ask(fleet, "a")
        assert len(stage.runners) == 1, "nothing says that it moved"
        (tmp_path / "store" / "index.json").write_text("{}")
        lease = await fleet.lease("a")
        assert lease.model.digest == "sha256:2"
        lease.release()
        assert len(stage.runners) == 2


async def test_releasing_cancels_the_answer_under_way(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(step=0.01, words=("x",) * 1000)}) as (fleet, stage):
        lease = await fleet.lease("a")
        await anext(lease.generate(REQUEST))
        assert lease.model.active == 1
        lease.release()
        await until(lambda: stage.of("a").cancelled == 1)
        assert fleet.models()[0].active == 0
        with pytest.raises(DockyardError, match="given back"):
            lease.generate(REQUEST)


async def test_requests_beyond_the_parallel_ones_wait_for_a_slot(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(step=5.0)}) as (fleet, _):
        leases = [await fleet.lease("a") for _ in range(2)]
        streams = [lease.generate(REQUEST) for lease in leases]
        waiting = [asyncio.create_task(fleet.lease("a")) for _ in range(3)]
        await until(lambda: fleet.models()[0].queued == 3)
        (row,) = fleet.models()
        assert (row.parallel, row.active) == (2, 2)
        await streams[0].aclose()
        third = await waiting[0]
        assert not waiting[1].done(), "an answer that ended left one slot"
        for lease in (*leases, third):
            lease.release()
        for task in waiting[1:]:
            (await task).release()
        assert fleet.models()[0].active == 0


async def test_who_waits_too_long_for_a_slot_is_told_place_and_time(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script()}, queue_seconds=0.1) as (fleet, _):
        leases = [await fleet.lease("a") for _ in range(2)]
        with pytest.raises(Overloaded, match=r"no slot of a came free within 0.1 s.*place 1") as caught:
            await fleet.lease("a")
        assert (caught.value.retry_after or 0) >= 1
        for lease in leases:
            lease.release()


async def test_slots_are_shared_fairly_between_keys(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script()}) as (fleet, _):
        held = [await fleet.lease("a", key="many") for _ in range(2)]
        order: list[str] = []

        async def client(key: str) -> None:
            lease = await fleet.lease("a", key=key)
            order.append(key)
            await asyncio.sleep(0.002)
            lease.release()

        crowd = [asyncio.create_task(client("many")) for _ in range(20)]
        await until(lambda: fleet.models()[0].queued == 20)
        few = [asyncio.create_task(client("few")) for _ in range(3)]
        await until(lambda: fleet.models()[0].queued == 23)
        for lease in held:
            lease.release()
        await asyncio.gather(*crowd, *few)
        assert [n for n, key in enumerate(order) if key == "few"][-1] < 10, "they came last, and are one of two keys"


async def test_batch_work_waits_for_quiet_and_makes_way(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(step=0.05, words=("x",) * 100)}, batch_quiet_seconds=0.1) as (
        fleet,
        stage,
    ):
        first = await fleet.lease("a", key="person")
        waiting = asyncio.create_task(fleet.lease("a", lane="batch"))
        await asyncio.sleep(0.05)
        assert not waiting.done(), "a slot is free, but a person is served"
        first.release()
        lent = await asyncio.wait_for(waiting, 5)
        stream = lent.generate(REQUEST)
        await anext(stream)
        second = await fleet.lease("a", key="person")
        with pytest.raises(Preempted):
            async for _ in stream:
                pass
        await until(lambda: stage.of("a").cancelled == 1)
        lent.release()
        second.release()
        again = await asyncio.wait_for(fleet.lease("a", lane="batch"), 5)
        assert (await anext(again.generate(REQUEST)))[0].text == "x"
        again.release()


async def test_preempting_reaches_batch_work_that_is_not_being_read(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script()}, batch_quiet_seconds=0.0) as (fleet, stage):
        lent = await fleet.lease("a", lane="batch")
        stream = lent.generate(REQUEST)
        person = await fleet.lease("a")
        await until(lambda: stage.of("a").cancelled == 1)
        with pytest.raises(Preempted):
            await anext(stream)
        with pytest.raises(Preempted):
            lent.generate(REQUEST)
        lent.release()
        person.release()


async def test_beside_people_batch_work_has_the_slots_they_leave(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script()}, batch_quiet_seconds=-1.0) as (fleet, _):
        person = await fleet.lease("a")
        lent = await fleet.lease("a", lane="batch")
        stream = lent.generate(REQUEST)
        another = await fleet.lease("a")
        with pytest.raises(Preempted):
            await anext(stream)
        for lease in (person, lent, another):
            lease.release()


async def test_a_wrong_prediction_is_corrected_in_the_ledger_and_remembered(tmp_path: Path) -> None:
    models = {"a": Script(size=30, actual=70), "b": Script(size=50)}
    async with staged(tmp_path, models) as (fleet, stage):
        await ask(fleet, "a")
        assert fleet.schedule.ledger.charged == 70 * MIB
        await ask(fleet, "b")
        assert stage.live() == ["b"]
        held = await fleet.lease("b")
        waiting = asyncio.create_task(ask(fleet, "a"))
        await asyncio.sleep(0.03)
        assert not waiting.done(), "it was predicted to fit beside b, but is known not to"
        held.release()
        await waiting


async def test_growth_is_measured_and_idle_models_give_way(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(size=40), "b": Script(size=40)}, idle_seconds=1.0) as (fleet, stage):
        await ask(fleet, "a")
        held = await fleet.lease("b")
        stage.of("b").size = 75 * MIB
        await until(lambda: stage.live() == ["b"])
        assert fleet.models()[0].measured == 75 * MIB
        held.release()


async def test_close_drains_what_runs_and_refuses_what_waits(tmp_path: Path) -> None:
    models = {"a": Script(size=90, step=0.03), "b": Script(size=90), "c": Script(size=5, load=5.0)}
    async with staged(tmp_path, models) as (fleet, stage):
        running = asyncio.create_task(ask(fleet, "a"))
        await until(lambda: stage.live() == ["a"])
        waiting = asyncio.create_task(ask(fleet, "b"))
        loading = asyncio.create_task(ask(fleet, "c"))
        await until(lambda: len(stage.runners) == 2)
        await fleet.close(drain=5.0)
        assert await running == "one two three"
        for task in (waiting, loading):
            with pytest.raises(Overloaded, match="shutting down"):
                await task
        with pytest.raises(Overloaded, match="shutting down"):
            await fleet.lease("a")
        await fleet.close()


async def test_an_answer_cut_short_by_unloading_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(step=0.02)}) as (fleet, stage):
        lease = await fleet.lease("a")
        stream = lease.generate(REQUEST)
        await anext(stream)
        stage.of("a").ended_quietly = True
        await fleet.unload("a", drain=0.0)
        with pytest.raises(Overloaded, match="middle of the answer"):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        lease.release()


async def test_closing_does_not_wait_for_batch_work(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(step=60.0)}, batch_quiet_seconds=0.0) as (fleet, _):
        lent = await fleet.lease("a", lane="batch")
        reading = asyncio.ensure_future(anext(lent.generate(REQUEST)))
        await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await fleet.close(drain=60.0)
        with pytest.raises(Preempted):
            await reading
        lent.release()


async def test_close_gives_up_on_what_does_not_finish(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(step=60.0)}) as (fleet, _):
        lease = await fleet.lease("a")
        begun = time.monotonic()
        await fleet.close(drain=0.1)
        assert time.monotonic() - begun < 20
        lease.release()


@pytest.mark.parametrize("turns", range(8))
async def test_close_at_any_moment_of_a_load(tmp_path: Path, turns: int) -> None:
    async with staged(tmp_path, {"a": Script(load=0.01)}) as (fleet, _):
        task = asyncio.create_task(ask(fleet, "a"))
        for _ in range(turns):
            await asyncio.sleep(0.001)
        await fleet.close(drain=0.0)
        (result,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(result, Overloaded | WorkerCrashed) or result == "one two three"


async def test_logs_are_shown_and_followed(tmp_path: Path) -> None:
    async with staged(tmp_path, {"a": Script(), "b": Script()}) as (fleet, _):
        await ask(fleet, "a")
        assert fleet.logs("a") == ["a is loaded"]
        assert fleet.logs() == ["a: a is loaded"]
        lines = fleet.follow()
        following = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0.01)
        await ask(fleet, "b")
        assert await asyncio.wait_for(following, 5) == "b: b is loaded"
        await lines.aclose()


async def test_a_mixed_crowd_with_crashes_is_all_answered(tmp_path: Path) -> None:
    chance = random.Random(1)
    models = {name: Script(size=40, load=0.005, step=0.0005) for name in "abcdef"}
    async with staged(tmp_path, models) as (fleet, stage):
        answered = 0

        async def client(name: str) -> None:
            nonlocal answered
            while True:
                try:
                    await ask(fleet, name)
                except WorkerCrashed:
                    continue
                answered += 1
                return

        async def villain() -> None:
            for _ in range(10):
                await asyncio.sleep(0.03)
                victims = [runner for runner in stage.runners if runner.alive]
                if victims:
                    chance.choice(victims).crash()

        await asyncio.gather(villain(), *(client(chance.choice("abcdef")) for _ in range(300)))
        assert answered == 300
        assert fleet.schedule.ledger.charged <= fleet.schedule.ledger.budget
        assert all(resident.busy == 0 for resident in fleet.schedule.residents.values())
