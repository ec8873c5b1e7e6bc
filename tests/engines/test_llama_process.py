"""What llama.cpp's process leaves open, takes and leaves behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from dockyard.errors import EngineUnavailable, LoadFailed, Overloaded, WorkerCrashed
from dockyard.fleet.runner import Runner
from dockyard.types import Sampling

from .conftest import ask, collect, prepare, said, smol

pytestmark = [pytest.mark.anyio, pytest.mark.model]
LONG = Sampling(max_tokens=400, ignore_eos=True)
SMALL: dict[str, Any] = {"context": 256, "parallel": 2, "threads": 1}


Launch = Callable[..., Awaitable[Runner]]


@pytest.fixture
async def launch(starter_gguf: Path, tmp_path: Path) -> AsyncIterator[Launch]:
    """Loads the starter model as asked; whatever becomes of the test, it is stopped in the end."""
    made: list[Runner] = []

    async def start(driver: str, **options: Any) -> Runner:
        template = options.pop("template", None)
        files = msgspec.structs.replace(smol(starter_gguf), chat_template=template)
        runner, _ = prepare(files, driver, tmp_path / "log", **{**SMALL, **options})
        made.append(runner)
        await runner.start()
        return runner

    yield start
    for runner in made:
        await runner.stop()


def family(runner: Runner) -> list[psutil.Process]:
    worker = psutil.Process(runner.pid)
    return [worker, *worker.children(recursive=True)]


async def gone(processes: list[psutil.Process]) -> bool:
    deadline = time.monotonic() + 5
    while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


async def test_nobody_can_reach_the_model_but_through_us(llama: Runner) -> None:
    """No TCP port; a Unix socket, if there is one, in a folder of our own, and it wants a key."""
    for process in family(llama):
        assert [each for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN] == []
    paths = {each.laddr for process in family(llama) for each in process.net_connections("unix")}
    for path in (Path(str(path)) for path in paths if str(path).startswith("/")):
        assert "dockyard-" in str(path)
        if not path.exists():
            continue
        assert path.parent.stat().st_mode & 0o777 == 0o700
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(10)
            stranger.connect(str(path))
            stranger.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n" + b'{"prompt":"a"}'
            )
            assert b" 401 " in stranger.recv(4096).partition(b"\r\n")[0]


async def test_prediction_is_near_what_it_takes(llama: Runner, starter_gguf: Path, tmp_path: Path) -> None:
    options = {"context": 512, "parallel": 8, "threads": 1, "flags": {"prompt_cache": 0}}
    _, plan = prepare(smol(starter_gguf), "embedded", tmp_path / "log", **options)
    await collect(llama, ask("Hi"))
    measured = llama.rss()
    assert measured is not None
    assert 0.75 < plan.predicted.total / measured < 1.35


@pytest.mark.parametrize("driver", ["embedded", "native"])
async def test_killed_mid_stream(driver: str, launch: Launch) -> None:
    for _ in range(3):
        runner = await launch(driver)
        processes = family(runner)
        stream = runner.generate(ask("A tale", sampling=LONG))
        await stream.__anext__()
        processes[0].kill()
        with pytest.raises(WorkerCrashed, match="SIGKILL"):
            await _read_all(stream)
        assert await gone(processes)


@pytest.mark.parametrize("driver", ["embedded", "native"])
async def test_the_log_tells_how_it_was_loaded_and_nothing_of_what_was_asked(driver: str, launch: Launch) -> None:
    runner = await launch(driver)
    assert runner.log_path is not None
    await collect(runner, ask("Zanzibar"))
    (loaded,) = runner.log_path.read_text().splitlines()
    told = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO docker.io/ai/smollm2:latest loaded by llamacpp in \d+\.\d s: "
    version = r"xllamacpp \d+\.\d+" if driver == "embedded" else r"\S*llama-server \S+"
    found = re.search(told + version + r".*, context 256, parallel 2, .*threads 1, .* (\d+) MiB measured$", loaded)
    assert found, loaded
    assert int(found[1]) > 90
    await runner.stop()
    assert runner.log_path.read_text().endswith(" INFO docker.io/ai/smollm2:latest unloaded\n")
    assert "Zanzibar" not in runner.log_path.read_text()


async def test_news_of_a_load_are_not_the_last_words_of_a_killed_worker(launch: Launch) -> None:
    runner = await launch("embedded")
    stream = runner.generate(ask("A tale", sampling=LONG))
    await stream.__anext__()
    os.kill(runner.pid or 0, signal.SIGKILL)
    with pytest.raises(WorkerCrashed, match=r"died \(killed by SIGKILL\)$"):
        await _read_all(stream)


async def test_a_system_without_openmp_is_told_which_package_it_lacks(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = "libgomp.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "xllamacpp.py").write_text(f"raise ImportError({missing!r})\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EngineUnavailable, match=r"libgomp\.so\.1") as caught:
        await launch("embedded")
    assert "apt install libgomp1" in (caught.value.hint or "")


async def test_a_native_server_that_dies_takes_its_worker_along(launch: Launch) -> None:
    runner = await launch("native")
    processes = family(runner)
    assert len(processes) == 2
    stream = runner.generate(ask("A tale", sampling=LONG))
    await stream.__anext__()
    processes[1].kill()
    with pytest.raises(WorkerCrashed):
        await _read_all(stream)
    ended = await runner.wait_exit()
    assert not ended.expected
    assert "llama-server ended by itself: -9" in ended.log_tail
    assert await gone(processes)


async def test_a_stopped_native_server_leaves_no_process_and_no_folder(launch: Launch) -> None:
    runner = await launch("native")
    processes = family(runner)
    folder = Path(next(part for part in processes[1].cmdline() if part.endswith(".sock"))).parent
    assert folder.is_dir()
    assert not any(len(part) > 40 and "/" not in part for part in processes[1].cmdline()), "a key on the command line"
    await runner.stop()
    assert await gone(processes)
    assert not folder.exists()


@pytest.mark.parametrize("driver", ["embedded", "native"])
async def test_a_file_cut_short_says_so(driver: str, starter_gguf: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    with starter_gguf.open("rb") as whole:
        cut.write_bytes(whole.read(5 << 20))
    files = msgspec.structs.replace(smol(starter_gguf), weights=(str(cut),))
    runner, _ = prepare(files, driver, tmp_path / "log", **SMALL)
    with pytest.raises(LoadFailed, match="not within the file bounds"):
        await runner.start()
    assert not psutil.pid_exists(runner.pid or 0)


@pytest.mark.parametrize("driver", ["embedded", "native"])
async def test_the_artifacts_own_chat_template_counts(driver: str, launch: Launch) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}: one two three four five six"
    runner = await launch(driver, template=template)
    chunks = await collect(runner, ask("Count", sampling=Sampling(max_tokens=2, temperature=0)))
    assert said(chunks).strip().startswith("seven")


@pytest.mark.parametrize("driver", ["embedded", "native"])
async def test_a_full_pool_takes_the_newest_and_spares_the_rest(driver: str, launch: Launch) -> None:
    """Three requests that each fit, but not together: the oldest finish, what had to go says why, the model goes on."""
    options = {"context": 256, "parallel": 3, "threads": 1, "flags": {"kv_tokens": 256}}
    runner = await launch(driver, **options)
    long = Sampling(max_tokens=70, ignore_eos=True)
    requests = [ask("A tale of the sea", number, long) for number in range(3)]
    answers = await asyncio.gather(*(collect(runner, request) for request in requests), return_exceptions=True)
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(each, Overloaded) and "KV cache" in str(each) for each in failed)
    assert 1 <= len(failed) <= 2
    for answer in answers:
        if not isinstance(answer, BaseException):
            assert answer[-1].usage is not None
            assert answer[-1].usage.completion_tokens == 70
    assert said(await collect(runner, ask("Hi")))


async def test_the_worker_does_not_outlive_a_killed_test(launch: Launch) -> None:
    """The native server is tied to the worker: killing the worker alone ends both, at once."""
    runner = await launch("native")
    processes = family(runner)
    os.kill(processes[0].pid, signal.SIGKILL)
    assert await gone(processes)
    await runner.wait_exit()


async def _read_all(stream: object) -> None:
    async for _ in stream:  # type: ignore[attr-defined]
        pass
