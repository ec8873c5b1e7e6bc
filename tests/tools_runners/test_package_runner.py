"""Packages as servers: one exact version in an environment of its own, with the hashes that were declared."""

from __future__ import annotations

import json
import shutil

import msgspec
import pytest

from dockyard.errors import DigestMismatch, InvalidRequest
from dockyard.tools.model import Server, ToolFailed
from dockyard.tools.runners import runner
from dockyard.tools.runners.package import Package, parse

from .talk import configured, talking
from .test_process_runner import missing

pytest.importorskip("mcp", reason="needs the extra mcp")
pytestmark = [pytest.mark.anyio, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]

SMALL = "pypi:six==1.17.0"
SMALL_HASH = "sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274"


async def test_a_package_of_pypi_answers() -> None:
    server = Server(name="time", kind="package", package="pypi:mcp-server-time==2026.10.19")
    async with talking(server) as talk:
        told = json.loads(await talk.good("get_current_time", timezone="Europe/Oslo"))
    assert told["timezone"] == "Europe/Oslo"
    package = runner("package", configured())
    assert isinstance(package, Package)
    locked = package.locked(server)
    assert locked is not None
    assert any(line.startswith("mcp-server-time==2026.10.19 sha256:") for line in locked)


@pytest.mark.skipif(not (shutil.which("npm") and shutil.which("node")), reason="needs npm and node")
async def test_a_package_of_npm_answers() -> None:
    server = Server(
        name="memory",
        kind="package",
        package="npm:@modelcontextprotocol/server-memory@2026.8.31",
        env={"MEMORY_FILE_PATH": "/home/tool/memory.jsonl"},
    )
    async with talking(server) as talk:
        entity = {"name": "Ada", "entityType": "person", "observations": ["counts"]}
        await talk.good("create_entities", entities=[entity])
        assert "Ada" in await talk.good("read_graph")
    package = Package(configured())
    locked = package.locked(server)
    assert locked is not None
    pinned = msgspec.structs.replace(server, hashes=locked)
    await package.install(pinned)
    assert package.locked(pinned) == locked
    changed = tuple(line.replace("zod@", "zod@0.") for line in locked)
    assert changed != locked
    with pytest.raises((DigestMismatch, ToolFailed)):
        await package.install(msgspec.structs.replace(server, hashes=changed))


async def test_hashes_decide_what_is_installed() -> None:
    package = Package(configured())
    free = Server(name="s", kind="package", package=SMALL)
    folder = await package.install(free)
    locked = package.locked(free)
    assert locked == (f"six==1.17.0 {SMALL_HASH}",)
    assert await package.install(free) == folder

    for hashes in (locked, (SMALL_HASH,)):
        pinned = Server(name="s", kind="package", package=SMALL, hashes=hashes)
        assert await package.install(pinned) != folder
        assert package.locked(pinned) == locked

    wrong = "sha256:" + "0" * 64
    for hashes, kind in (((wrong,), DigestMismatch), ((f"six==1.17.0 {wrong}",), ToolFailed)):
        other = Server(name="s", kind="package", package=SMALL, hashes=hashes)
        with pytest.raises(kind):
            await package.install(other)
        assert package.locked(other) is None
    # Only the three that were good are there.
    assert len([path for path in folder.parent.iterdir() if path.is_dir()]) == 3
    with pytest.raises(ToolFailed, match="has no command"):
        async with talking(free):
            pass


async def test_what_can_not_be_installed_is_said() -> None:
    server = Server(name="s", kind="package", package="pypi:six==0.0.0.999")
    with pytest.raises(ToolFailed, match=r"six==0\.0\.0\.999 can't be installed"):
        await Package(configured()).install(server)
    with pytest.raises(ToolFailed, match="offline"):
        await Package(configured(offline=True)).install(server)


@pytest.mark.parametrize(
    "package",
    [
        "", "six", "pypi:six", "pypi:six>=1", "pypi:six==1 --index-url=https://evil.example", "npm:left-pad",
        "npm:left-pad@latest", "npm:../x@1.0.0", "pypi:-r==1", "pypi:six @ https://evil.example/x.whl", "gem:x==1",
    ],
)  # fmt: skip
def test_only_one_exact_version_is_a_package(package: str) -> None:
    with pytest.raises(InvalidRequest, match="is not pypi:name==version or npm:name@version"):
        parse(Server(name="s", kind="package", package=package))
