"""Servers in containers of a real Docker engine: what they may, which image they are, and what is left of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from container.engine import BASE, Engine, missing, rootfs, start, stop
from dockyard.errors import EngineUnavailable, InvalidRequest
from dockyard.tools.model import Sandbox, Secret, Server, ToolFailed
from dockyard.tools.runners import _engine, runner
from dockyard.tools.runners.container import Container

from .talk import SERVER, configured, listening, talking

pytest.importorskip("mcp", reason="needs the extra mcp")
pytestmark = [pytest.mark.anyio, pytest.mark.container, pytest.mark.timeout(600)]

SCRIPT = SERVER.with_name("plain_server.py")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine of our own, whose one image is a Debian with Python."""
    why = missing()
    if why:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("engine")
    running = start("run", folder)
    try:
        running.docker("import", str(rootfs()), BASE)
        yield running
    finally:
        stop(folder)
        shutil.rmtree(folder / "data", ignore_errors=True)


@pytest.fixture(autouse=True)
def _its_engine(engine: Engine, monkeypatch: pytest.MonkeyPatch, _own_home: None) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, engine.environ[name])


def boxed(**values: Any) -> Server:
    sandbox = Sandbox(read=(str(SCRIPT),), **values.pop("sandbox", {}))
    command = ("python3", str(SCRIPT))
    return Server(
        **{"name": "boxed", "kind": "container", "image": BASE, "command": command, "sandbox": sandbox, **values}
    )


def left(engine: Engine) -> list[str]:
    return engine.docker("ps", "--all", "--quiet", "--filter", f"label={_engine.LABEL}").split()


async def test_it_answers_locked_down(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    server = boxed(
        env={"REGION": "north", "KEYS": "two\nlines"},
        secrets=(Secret(name="api", env="API_KEY"),),
        volumes=(f"{tmp_path}/in:/in", f"{tmp_path}/out:/out:rw"),
        sandbox={"write": (f"{tmp_path}/out",), "processes": 20, "memory": 256 << 20},
    )
    async with talking(server, {"api": "sesame-12345"}) as talk:
        (identity,) = left(engine)
        assert "sesame-12345" not in " ".join(Path(f"/proc/{talk.link.pid}/cmdline").read_text().split("\0"))  # noqa: ASYNC240
        told = dict(line.split("=", 1) for line in (await talk.good("environment")).splitlines() if "=" in line)
        assert (told["REGION"], told["API_KEY"], told["HOME"]) == ("north", "sesame-12345", "/tmp")
        assert told["KEYS"] == "two"
        status = dict(line.split(":\t", 1) for line in (await talk.good("status")).splitlines())
        assert (status["CapEff"], status["CapBnd"], status["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")
        for path in ("/usr/bin/new", "/in/new"):
            assert "Read-only" in await talk.bad("write", path=path)
        for path in ("/tmp/new", "/out/new"):
            assert await talk.good("write", path=path) == "written"
        assert "unreachable" in await talk.bad("dial", host="192.0.2.1", port=80)
        assert int(await talk.good("bomb")) <= 22
        memory = engine.docker("inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}", identity)
        assert memory.split() == [str(256 << 20), "1000000000"]
    assert (tmp_path / "out" / "new").read_text() == "was here"
    assert left(engine) == []


async def test_listed_hosts_are_reached_and_no_others() -> None:
    async def page(_scope: Any, _receive: Any, send: Any) -> None:
        if _scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"hello"})

    async with listening(page) as port:
        server = boxed(env={"no_proxy": "", "NO_PROXY": ""}, sandbox={"hosts": (f"localhost:{port}",)})
        async with talking(server, tools_private=["localhost"]) as talk:
            assert await talk.good("fetch", url=f"http://localhost:{port}/") == "hello"
            assert "403" in await talk.bad("fetch", url="http://example.com/")
            assert "refused" in await talk.bad("dial", host="127.0.0.1", port=port)


async def test_a_tag_is_what_it_was_when_it_was_first_used(engine: Engine) -> None:
    package = runner("container", configured())
    assert isinstance(package, Container)
    engine.docker("tag", BASE, "moving:1")
    server = boxed(image="moving:1")
    assert package.resolved(server) is None
    async with talking(server) as talk:
        assert await talk.good("echo", text="x") == "x"
    identity = engine.docker("image", "inspect", "--format", "{{.Id}}", BASE).strip()
    assert package.resolved(server) == identity
    other = engine.docker("run", "--detach", BASE, "true").strip()
    engine.docker("wait", other)
    engine.docker("commit", other, "moving:1")
    engine.docker("rm", other)
    async with talking(server):
        (running,) = left(engine)
        assert engine.docker("inspect", "--format", "{{.Image}}", running).strip() == identity


@pytest.mark.parametrize("way", ["close", "error", "cancel"])
async def test_nothing_is_left_whatever_way_it_ends(way: str, engine: Engine) -> None:
    begun = asyncio.Event()

    async def use() -> None:
        async with talking(boxed()) as talk:
            await talk.good("stay")
            begun.set()
            if way == "error":
                raise RuntimeError("ours")
            if way == "cancel":
                await asyncio.sleep(60)

    task = asyncio.create_task(use())
    await begun.wait()
    assert way != "cancel" or len(left(engine)) == 1
    if way == "cancel":
        task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(result, {"close": type(None), "error": RuntimeError, "cancel": asyncio.CancelledError}[way])
    assert left(engine) == []


def test_nothing_is_left_when_dockyard_is_killed(engine: Engine) -> None:
    code = (
        "import asyncio, sys\nsys.path.insert(0, 'tests')\n"
        "from tools_runners.test_container_runner import boxed, talking\n"
        "async def main():\n"
        "    async with talking(boxed()) as talk:\n"
        "        await talk.good('stay')\n"
        "        print('ready', flush=True)\n        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    where = SERVER.parent.parent.parent
    ours = subprocess.Popen([sys.executable, "-c", code], cwd=where, stdout=subprocess.PIPE, text=True)
    try:
        assert ours.stdout is not None
        assert ours.stdout.readline() == "ready\n"
        assert len(left(engine)) == 1
    finally:
        ours.kill()
        ours.wait()
        ours.stdout.close()
    for _ in range(200):
        if not left(engine):
            break
        time.sleep(0.05)
    assert left(engine) == []


async def test_what_a_failure_of_the_machine_left_is_swept(engine: Engine) -> None:
    own, dead = _engine.owner(), _engine.owner().replace(f"/{os.getpid()}/", "/999999999/")
    again = own.rpartition("/")[0] + "/1"  # the same number, another process
    names = {}
    for owner in (own, dead, again, "elsewhere/1/1"):
        words = ("--label", f"{_engine.LABEL}=x", "--label", f"{_engine.OWNER}={owner}", BASE, "sleep", "60")
        names[engine.docker("run", "--detach", *words).strip()[:12]] = owner
    async with talking(boxed()):
        pass
    assert sorted(names[identity] for identity in left(engine)) == sorted([own, "elsewhere/1/1"])
    engine.docker("rm", "--force", *left(engine))


async def test_what_can_not_run_is_said(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    with pytest.raises(ToolFailed, match="is not here, and images are not pulled"):
        async with talking(boxed(image="nobody/has:this"), tools_pull="never"):
            pass
    with pytest.raises(ToolFailed, match="ended with status 3; its last words: broken"):
        async with talking(boxed(command=("sh", "-c", "echo broken >&2; exit 3"))):
            pass
    with pytest.raises(ToolFailed, match="not-a-program"):
        async with talking(boxed(command=("not-a-program",))):
            pass
    assert left(engine) == []
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(EngineUnavailable, match="does not answer"):
        async with talking(boxed()):
            pass


async def test_where_docker_does_not_answer_podman_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"docker": "echo 'Cannot connect to the Docker daemon' >&2; exit 1"}
    words["podman"] = f'exec {shutil.which("docker")} "$@"'
    for name, text in words.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    async with talking(boxed()) as talk:
        assert await talk.good("echo", text="x") == "x"


@pytest.mark.parametrize(
    "values",
    [
        {"image": "--privileged"}, {"image": ""}, {"user": "0 --privileged"}, {"volumes": ("/:/host",)},
        {"volumes": ("/var/run/docker.sock:/var/run/docker.sock",)}, {"volumes": ("~/.ssh:/keys:ro",)},
        {"volumes": ("name",)}, {"volumes": ("name:/x:shared",)}, {"volumes": ("-v:/x",)},
    ],
)  # fmt: skip
async def test_what_an_engine_is_not_told(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="boxed"):
        async with talking(boxed(**values)):
            pass
