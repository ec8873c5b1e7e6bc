"""One worker's life: load, answer, cancel, drain, and the many ways to die."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import psutil
import pytest

from dockyard.errors import EngineError, LoadFailed, Overloaded, WorkerCrashed
from dockyard.types import Sampling

from .conftest import MakeWorker, ask, collect, said

pytestmark = pytest.mark.anyio
LONG = Sampling(max_tokens=100_000, ignore_eos=True)


async def until(condition: object, seconds: float = 10.0) -> None:
    """Wait for ``condition()``; fails the test when it does not come."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


async def test_load_answer_stop(worker_of: MakeWorker) -> None:
    worker = worker_of()
    started = await worker.start()
    assert started.measured is not None
    assert 5 << 20 < started.measured < 200 << 20
    assert worker.alive
    assert worker.pid is not None
    chunks = await collect(worker, ask("hello big world"))
    assert said(chunks) == "hello big world"
    assert chunks[-1].usage is not None
    pid = worker.pid
    await worker.stop()
    ended = await worker.wait_exit()
    assert ended.expected
    assert not worker.alive
    assert not psutil.pid_exists(pid)
    await worker.stop()


async def test_the_worker_leads_its_own_session_and_holds_no_foreign_descriptor(worker_of: MakeWorker) -> None:
    reader, writer = os.pipe()
    worker = worker_of()
    await worker.start()
    assert worker.pid is not None
    assert os.getsid(worker.pid) == worker.pid
    assert len(os.listdir(f"/proc/{worker.pid}/fd")) <= 6
    os.close(reader)
    os.close(writer)


async def test_many_streams_at_once_arrive_whole_and_in_order(worker_of: MakeWorker) -> None:
    worker = worker_of(parallel=16)
    await worker.start()
    texts = [" ".join(f"w{stream}.{word}" for word in range(200)) for stream in range(40)]
    answers = await asyncio.gather(*(collect(worker, ask(text, number)) for number, text in enumerate(texts)))
    assert [said(answer) for answer in answers] == texts


async def test_more_requests_than_slots_wait_in_order(worker_of: MakeWorker) -> None:
    worker = worker_of(parallel=1, speed=200)
    await worker.start()
    done: list[int] = []

    async def one(number: int) -> None:
        await collect(worker, ask("a b c", number))
        done.append(number)

    await asyncio.gather(*(one(number) for number in range(6)))
    assert done == sorted(done)


async def test_choices_take_a_slot_each_and_are_not_starved(worker_of: MakeWorker) -> None:
    worker = worker_of(parallel=2, speed=500)
    await worker.start()
    singles = [asyncio.create_task(collect(worker, ask("x y z", number))) for number in range(6)]
    await asyncio.sleep(0)
    double = await collect(worker, ask("one two", 99, Sampling(n=2)))
    assert said(double, 0) == said(double, 1) == "one two"
    await asyncio.gather(*singles)


async def test_a_cancelled_stream_frees_its_slot_at_once(worker_of: MakeWorker) -> None:
    worker = worker_of(parallel=1, speed=50)
    await worker.start()
    stream = worker.generate(ask("on and on", 1, LONG))
    await stream.__anext__()
    begun = time.monotonic()
    await stream.aclose()
    assert said(await collect(worker, ask("next", 2))) == "next"
    assert time.monotonic() - begun < 10
    assert [chunks async for chunks in stream] == []


async def test_a_cancelled_task_frees_its_slot_without_aclose(worker_of: MakeWorker) -> None:
    worker = worker_of(parallel=1, speed=50)
    await worker.start()
    task = asyncio.create_task(collect(worker, ask("on and on", 1, LONG)))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert said(await collect(worker, ask("next", 2))) == "next"


async def test_a_request_cancelled_while_it_waits_never_runs(worker_of: MakeWorker) -> None:
    worker = worker_of(parallel=1, speed=20)
    await worker.start()
    first = asyncio.create_task(collect(worker, ask("a b c d", 1)))
    await asyncio.sleep(0.02)
    waiting = worker.generate(ask("never", 2, LONG))
    await waiting.aclose()
    last = await collect(worker, ask("last", 3))
    assert (said(await first), said(last)) == ("a b c d", "last")


async def test_200_hang_ups_leave_nothing_behind(worker_of: MakeWorker) -> None:
    worker = worker_of(parallel=16, speed=300)
    await worker.start()
    assert worker.pid is not None
    await collect(worker, ask("warm up"))
    process, ours = psutil.Process(worker.pid), psutil.Process()
    await until(lambda: process.num_threads() <= 4)
    before = (process.num_fds(), ours.num_fds(), threading.active_count(), len(asyncio.all_tasks()))

    async def hang_up(number: int) -> None:
        stream = worker.generate(ask("on and on", number, LONG))
        await stream.__anext__()
        await stream.aclose()

    await asyncio.gather(*(hang_up(number) for number in range(200)))
    await until(lambda: process.num_threads() <= 4)
    await asyncio.sleep(0.05)
    assert (process.num_fds(), ours.num_fds(), threading.active_count(), len(asyncio.all_tasks())) == before
    assert said(await collect(worker, ask("still here"))) == "still here"


async def test_expected_errors_cross_with_their_advice(worker_of: MakeWorker) -> None:
    worker = worker_of()
    await worker.start()
    with pytest.raises(Overloaded, match="told to fail") as caught:
        await collect(worker, ask("x y", fault={"kind": "error"}))
    assert (caught.value.hint, caught.value.retry_after) == ("do not ask for it", 7)
    with pytest.raises(EngineError, match="ZeroDivisionError"):
        await collect(worker, ask("x y", fault={"kind": "bug"}))
    assert said(await collect(worker, ask("alive"))) == "alive"


async def test_what_was_said_before_an_error_is_delivered_first(worker_of: MakeWorker) -> None:
    worker = worker_of()
    await worker.start()
    words: list[str] = []

    async def read() -> None:
        async for chunks in worker.generate(ask("a b c d", fault={"kind": "error", "after": 2})):
            words.extend(chunk.text for chunk in chunks)

    with pytest.raises(Overloaded):
        await read()
    assert words == ["a", " b"]


async def test_killed_mid_stream_50_times(worker_of: MakeWorker) -> None:
    """Every open stream learns how the worker died; nothing of it stays; a fresh one serves."""
    ours = psutil.Process()
    before = None
    for round_ in range(50):
        worker = worker_of(speed=1000)
        await worker.start()
        streams = [worker.generate(ask("on and on", number, LONG)) for number in range(3)]
        for stream in streams:
            await stream.__anext__()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        for stream in streams:
            with pytest.raises(WorkerCrashed, match="SIGKILL"):
                async for _ in stream:
                    pass
        ended = await worker.wait_exit()
        assert (ended.expected, ended.reason) == (False, "killed by SIGKILL")
        assert not worker.alive
        with pytest.raises(WorkerCrashed):
            worker.generate(ask("too late"))
        assert not psutil.pid_exists(worker.pid)
        now = (ours.num_fds(), threading.active_count(), len(asyncio.all_tasks()))
        before = before or now
        assert now == before, f"round {round_}"


async def test_a_killed_worker_leaves_no_temporary_files(worker_of: MakeWorker) -> None:
    worker = worker_of()
    await worker.start()
    process = psutil.Process(worker.pid)
    scratch = process.environ()["TMPDIR"]
    assert os.stat(scratch).st_mode & 0o777 == 0o700
    os.mkdir(f"{scratch}/left-behind")
    process.kill()
    await worker.wait_exit()
    with pytest.raises(FileNotFoundError):
        os.stat(scratch)


@pytest.mark.parametrize(("kind", "reason"), [("exit", "exit status 3"), ("kill", "killed by SIGKILL")])
async def test_a_worker_that_dies_by_itself(worker_of: MakeWorker, kind: str, reason: str) -> None:
    worker = worker_of()
    await worker.start()
    with pytest.raises(WorkerCrashed, match=reason):
        await collect(worker, ask("a b c", fault={"kind": kind, "after": 1}))
    assert (await worker.wait_exit()).reason == reason


async def test_a_worker_without_heartbeat_is_killed(worker_of: MakeWorker) -> None:
    worker = worker_of(heartbeat=0.1, patience=0.6)
    await worker.start()
    with pytest.raises(WorkerCrashed, match="no sign of life"):
        await collect(worker, ask("a b c", fault={"kind": "hang", "after": 1}))
    assert "hung" in (await worker.wait_exit()).reason


async def test_heartbeats_carry_the_size_and_keep_a_silent_worker_alive(worker_of: MakeWorker) -> None:
    worker = worker_of(heartbeat=0.05, patience=0.6)
    await worker.start()
    stream = worker.generate(ask("a b c", fault={"kind": "stall", "after": 1}))
    await stream.__anext__()
    await asyncio.sleep(1.0)
    assert worker.alive
    size = worker.rss()
    assert size is not None
    assert size > 5 << 20
    await stream.aclose()


async def test_a_gateway_that_stood_still_does_not_blame_its_worker(worker_of: MakeWorker) -> None:
    worker = worker_of(heartbeat=0.05, patience=0.6)
    await worker.start()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    await asyncio.sleep(0.1)
    time.sleep(1.5)  # noqa: ASYNC251 - as if both had been stopped, as when a container is frozen
    asyncio.get_running_loop().call_later(0.1, os.kill, worker.pid, signal.SIGCONT)
    await asyncio.sleep(0.4)
    assert worker.alive


async def test_drain_lets_open_answers_finish(worker_of: MakeWorker) -> None:
    worker = worker_of(speed=100)
    await worker.start()
    task = asyncio.create_task(collect(worker, ask("one two three four five six seven eight nine ten")))
    await asyncio.sleep(0.02)
    await worker.stop(drain=10)
    assert said(await task).endswith("ten")
    with pytest.raises(Overloaded):
        worker.generate(ask("too late"))


@pytest.mark.parametrize("linger", [0, 0.5])
async def test_drain_has_an_end(worker_of: MakeWorker, linger: float) -> None:
    """Whoever still waits is told, also where the engine ends the answers before its process is gone."""
    worker = worker_of(speed=100, flags={"linger": linger})
    await worker.start()
    task = asyncio.create_task(collect(worker, ask("on and on", 1, LONG)))
    await asyncio.sleep(0.05)
    begun = time.monotonic()
    await worker.stop(drain=0.2)
    assert time.monotonic() - begun < 20
    with pytest.raises(Overloaded, match="unloaded"):
        await task


async def test_the_log_is_kept_short(worker_of: MakeWorker) -> None:
    worker = worker_of(heartbeat=0.1)
    await worker.start()
    assert worker.log_path is not None
    with worker.log_path.open("ab") as log:
        log.write(b"noise\n" * (2 << 20))
    await until(lambda: worker.log_path.stat().st_size < 1 << 20)  # type: ignore[union-attr]
    assert worker.log_path.with_name("echo.log.1").exists()
    with pytest.raises(EngineError):
        await collect(worker, ask("x y", fault={"kind": "bug"}))
    assert "ZeroDivisionError" in worker.log_path.read_text()


@pytest.mark.parametrize(
    ("fault", "message"),
    [("error", "told to error"), ("bug", "ZeroDivisionError"), ("kill", "killed by SIGKILL"), ("exit", "status 3")],
)
async def test_a_load_that_fails_says_why_and_leaves_nothing(worker_of: MakeWorker, fault: str, message: str) -> None:
    worker = worker_of(flags={"fault_on_load": fault})
    with pytest.raises(LoadFailed, match=message):
        await worker.start()
    ended = await worker.wait_exit()
    assert not ended.expected
    assert ended.log_tail[0].startswith("about to")
    assert worker.pid is not None
    assert not psutil.pid_exists(worker.pid)


async def test_a_load_that_takes_too_long_is_ended(worker_of: MakeWorker) -> None:
    worker = worker_of(flags={"fault_on_load": "stall"}, load_seconds=0.5)
    with pytest.raises(LoadFailed, match=r"within 0\.5 s"):
        await worker.start()
    assert worker.pid is not None
    assert not psutil.pid_exists(worker.pid)


async def test_a_cancelled_load_leaves_nothing(worker_of: MakeWorker) -> None:
    worker = worker_of(flags={"fault_on_load": "stall"})
    task = asyncio.create_task(worker.start())
    await until(lambda: worker.pid is not None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert worker.pid is not None
    assert not psutil.pid_exists(worker.pid)
