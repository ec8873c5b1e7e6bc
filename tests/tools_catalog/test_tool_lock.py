"""The lock: what drifts is found and shown, and a locked run begins only with what was agreed to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.artifact.registry.memory import MemoryRegistry
from dockyard.errors import Conflict, InvalidRequest, NotFound
from dockyard.settings import Settings
from dockyard.tools import lock as locks
from dockyard.tools.lock import Lock, LockedServer
from dockyard.tools.model import Enabled, Profile, Server, Tool

CLOCK = Server(name="clock", kind="process", command=("clock", "--utc"))


class Box:
    """As much of a toolbox as a lock asks: it lists what it is told to."""

    def __init__(self, tools: dict[str, dict[str, str]], flaws: dict[str, str] | None = None) -> None:
        self.tools_, self.flaws, self.listed = tools, flaws or {}, 0
        self.safety = None

    def session(self, principal: Any, profile: str) -> Any:
        from dockyard.tools.model import Session

        return Session(principal=principal, profile=profile)

    async def tools(self, session: Any) -> list[Tool]:
        self.listed += 1
        return [
            Tool(id=f"{server}__{name}", server=server, name=name, raw={}, fingerprint=print_)
            for server, tools in self.tools_.items()
            for name, print_ in tools.items()
        ]

    async def status(self, profile: str) -> list[dict[str, Any]]:
        return [{"name": name, "flaws": {"tools": reason}} for name, reason in self.flaws.items()]


def profile(*servers: Server) -> Profile:
    return Profile(name="default", servers=tuple(Enabled(server=server) for server in servers))


@pytest.mark.anyio
async def test_a_lock_is_kept_and_checked(tmp_path: Path) -> None:
    settings, path = Settings(home=str(tmp_path)), tmp_path / locks.FILE
    box: Any = Box({"clock": {"now": "sha256:1", "zone": "sha256:2"}})
    made = await locks.current(box, profile(CLOCK), settings)
    locks.write(path, made)
    first = path.read_bytes()
    locks.write(path, locks.read(path))
    assert path.read_bytes() == first
    assert await locks.check(box, profile(CLOCK), settings, path) == made
    changed: Any = Box({"clock": {"now": "sha256:1", "zone": "sha256:3", "kill": "sha256:4"}})
    with pytest.raises(Conflict) as caught:
        await locks.check(changed, profile(CLOCK), settings, path)
    assert "tool zone\n- sha256:2\n+ sha256:3" in caught.value.message
    assert "tool kill\n- (nothing)\n+ sha256:4" in caught.value.message
    gone: Any = Box({}, {"clock": "it died"})
    with pytest.raises(Conflict, match="it died"):
        await locks.check(gone, profile(CLOCK), settings, path)


@pytest.mark.anyio
async def test_nothing_that_differs_is_started(tmp_path: Path) -> None:
    settings, path = Settings(home=str(tmp_path)), tmp_path / locks.FILE
    box: Any = Box({"clock": {"now": "sha256:1"}})
    locks.write(path, await locks.current(box, profile(CLOCK), settings))
    box.listed = 0
    evil = msgspec.structs.replace(CLOCK, command=("rm", "-rf"))
    for other in (profile(evil), profile(CLOCK, Server(name="new", kind="process")), profile()):
        with pytest.raises(Conflict):
            await locks.check(box, other, settings, path)
    assert box.listed == 0
    with pytest.raises(InvalidRequest, match="not 'work'"):
        await locks.check(box, msgspec.structs.replace(profile(CLOCK), name="work"), settings, path)


@pytest.mark.anyio
async def test_an_image_is_locked_by_the_digest_that_its_name_stands_for(tmp_path: Path) -> None:
    settings = Settings(home=str(tmp_path))
    with MemoryRegistry() as memory:
        config = memory.add_blob("a/b", b"{}")
        manifest = msgspec.json.encode(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
                "layers": [],
            }
        )
        digest = memory.add_manifest("a/b", manifest, tag="v1")
        server = Server(name="box", kind="container", image=f"{memory.host}/a/b:v1")
        box: Any = Box({})
        made = await locks.current(box, profile(server), settings)
        assert made.servers["box"].digest == digest
        missing = msgspec.structs.replace(server, image=f"{memory.host}/a/b:v2")
        with pytest.raises(NotFound):
            await locks.current(box, profile(missing), settings)
    assert locks.pinned(profile(server), made).servers[0].server.image == f"{memory.host}/a/b:v1@{digest}"


def test_packages_run_by_the_hashes_of_the_lock() -> None:
    server = Server(name="p", kind="package", package="pypi:x==1")
    made = Lock(profile="default", servers={"p": locks.locked(Enabled(server=server), hashes=("x==1 sha256:1",))})
    assert locks.pinned(profile(server), made).servers[0].server.hashes == ("x==1 sha256:1",)
    other = Lock(profile="default", servers={"p": locks.locked(Enabled(server=server), hashes=("x==1 sha256:2",))})
    assert [(one.what, one.locked, one.found) for one in locks.differences(made, other)] == [
        ("hashes", "x==1 sha256:1", "x==1 sha256:2")
    ]


@pytest.mark.parametrize("text", ["", "{}", '{"version": 9, "profile": "a", "servers": {}}', '{"profile": 1}', "[]"])
def test_what_is_no_lock_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / locks.FILE
    with pytest.raises(NotFound):
        locks.read(path)
    path.write_text(text)
    with pytest.raises(InvalidRequest):
        locks.read(path)


words = st.sampled_from(["", "a", "b"])
servers = st.builds(
    LockedServer,
    kind=st.sampled_from(["process", "remote"]),
    entry=words,
    command=words,
    image=words,
    digest=words,
    package=words,
    hashes=st.frozensets(st.sampled_from(["a", "b"])).map(lambda found: tuple(sorted(found))),
    url=words,
    tools=st.dictionaries(words, st.sampled_from(["x", "y"])),
)
both = st.dictionaries(words, servers, max_size=3).map(lambda found: Lock(profile="p", servers=found))


@given(both, both)
def test_there_is_a_difference_just_where_locks_differ(was: Lock, now: Lock) -> None:
    found = {one.server for one in locks.differences(was, now)}
    expected = {name for name in {*was.servers, *now.servers} if was.servers.get(name) != now.servers.get(name)}
    assert found == expected


@given(st.sampled_from(["title", "description", "source"]), st.text(max_size=5))
def test_words_for_people_are_no_drift(field: str, text: str) -> None:
    assert locks.entry_digest(msgspec.structs.replace(CLOCK, **{field: text})) == locks.entry_digest(CLOCK)
