"""The built-in tools about containers, on a real Docker engine."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent.parent))

from container.engine import BASE, Engine, missing, rootfs, start, stop
from dockyard.settings import Settings
from dockyard.tools import platform
from dockyard.tools.model import ApprovalNeeded, Outcome
from dockyard.tools.profiles import Profiles
from dockyard.tools.toolbox import Toolbox
from dockyard.types import Principal

pytest.importorskip("mcp")
pytestmark = [pytest.mark.anyio, pytest.mark.container, pytest.mark.timeout(600)]

BOSS = Principal(name="boss", scopes=frozenset({"infer", "manage"}))
COUNTS = "import itertools, time\nfor n in itertools.count(): print('line', n, flush=True); time.sleep(0.2)"
Use = Callable[..., Awaitable[Outcome]]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine of our own with a deployment of two, and a stranger."""
    why = missing()
    if why:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("engine")
    running = start("run", folder)
    try:
        running.docker("import", str(rootfs()), BASE)
        made = running.docker("create", BASE, "true").strip()
        running.docker("commit", "--change", "LABEL dockyard.component=server", made, "own:1")
        common = ("run", "--detach", "--init", "--network", "none", "--env", "API_KEYS=sesame-12345")
        project = ("--label", "com.docker.compose.project=shop")
        script = ("python3", "-c", COUNTS)
        running.docker(*common, *project, "--memory", "64m", "--name", "front", "own:1", *script)
        running.docker(*common, "--label", "dockyard.tool=clock", "--tty", "--name", "back", BASE, *script)
        running.docker(*common, "--name", "stranger", BASE, *script)
        yield running
        running.docker("rm", "--force", "front", "back", "stranger")  # an engine that ends waits for them
    finally:
        stop(folder)
        shutil.rmtree(folder / "data", ignore_errors=True)


@pytest.fixture
async def use(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Use]:
    """Use a tool; a question is answered with yes."""
    monkeypatch.setenv("DOCKER_HOST", engine.socket)
    Profiles(tmp_path).enable("default", platform.SERVER)
    box = Toolbox(Settings(home=str(tmp_path)))
    session = box.session(BOSS)

    async def run(tool: str, **arguments: Any) -> Outcome:
        try:
            return await box.call(session, f"platform__{tool}", arguments)
        except ApprovalNeeded as needed:
            box.safety.grant(needed.approval.id, BOSS, True)
            return await box.call(session, f"platform__{tool}", arguments, approval=needed.approval.id)

    yield run
    await box.close()


async def test_own_containers_are_listed_and_no_others(use: Use) -> None:
    rows = {row["name"]: row for row in (await use("list_containers")).structured["containers"]}
    assert set(rows) == {"front", "back"}
    assert (rows["front"]["kind"], rows["front"]["deployment"], rows["front"]["image"]) == ("server", "shop", "own:1")
    assert (rows["back"]["kind"], rows["back"]["tool"]) == ("tool", "clock")


async def test_inspect_shows_no_values_of_variables(use: Use) -> None:
    told = await use("inspect_container", name="front")
    assert "API_KEYS" in told.structured["variables"]
    assert "sesame" not in told.text
    assert (told.structured["memory_limit"], told.structured["state"]) == (64 << 20, "running")


@pytest.mark.parametrize("name", ["front", "back"], ids=["frames", "terminal"])
async def test_logs_are_lines(use: Use, name: str) -> None:
    numbers = [0]
    while numbers[-1] == 0 or len(numbers) < 2:  # just started, or just started again by another test
        lines = [line.split(" ", 1) for line in (await use("container_logs", name=name, tail=2)).text.splitlines()]
        assert all(time.startswith("20") for time, _ in lines)
        numbers = [int(text.removeprefix("line ")) for _, text in lines] or [0]
    assert numbers[1] == numbers[0] + 1


async def test_stats_are_those_of_the_container(use: Use) -> None:
    told = (await use("container_stats", name="front")).structured
    assert told["memory_limit_bytes"] == 64 << 20
    assert 1 << 20 < told["memory_bytes"] < 64 << 20
    assert told["processes"] >= 2
    assert 0 <= told["cpu_percent"] < 100


async def test_stop_start_and_restart(use: Use, engine: Engine) -> None:
    assert (await use("stop_container", name="back", seconds=1)).structured["state"] == "exited"
    gone = await use("container_stats", name="back")
    assert gone.is_error
    assert "does not run" in gone.text
    names = [row["name"] for row in (await use("list_containers", running=True)).structured["containers"]]
    assert names == ["front"]
    assert (await use("start_container", name="back")).structured["state"] == "running"
    before = engine.docker("inspect", "--format", "{{.State.StartedAt}}", "back")
    assert (await use("restart_container", name="back", seconds=1)).structured["state"] == "running"
    assert engine.docker("inspect", "--format", "{{.State.StartedAt}}", "back") != before


@pytest.mark.parametrize("name", ["stranger", "nothing", "../images/json", "front?x=1", "frunt"])
async def test_what_is_not_dockyards_is_not_touched(use: Use, engine: Engine, name: str) -> None:
    for tool in ("inspect_container", "container_logs", "stop_container"):
        told = await use(tool, name=name)
        assert told.is_error
        assert f"Dockyard has no container {name!r}" in told.text
    if name == "frunt":
        assert "did you mean 'front'?" in told.text
    assert engine.docker("inspect", "--format", "{{.State.Running}}", "stranger").strip() == "true"
