"""Profiles on disk: whole or absent, one change at a time, the same to all processes, and they travel."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
import yaml

from dockyard.artifact.registry.memory import MemoryRegistry
from dockyard.artifact.store import Store
from dockyard.artifact.transfer import pull
from dockyard.errors import Conflict, InvalidRequest, NotFound, UnsupportedFormat
from dockyard.settings import Settings
from dockyard.tools import catalog
from dockyard.tools.choosing import choose, configure, look_up
from dockyard.tools.model import Enabled, Profile, Secret, Server
from dockyard.tools.profiles import Profiles

CLOCK = Server(name="clock", kind="package", package="pypi:mcp-server-time==2026.10.19")
DB = catalog.parse(
    """
registry:
  my.db:
    image: myorg/db@sha256:abc
    command: ["{{my.db.paths|into}}"]
    env: [{name: HOST, value: "{{my.db.host}}"}]
    secrets: [{name: my.db.key, env: KEY}]
    config: [{name: my.db, type: object, properties: {host: {type: string}}, required: [host]}]
    tools: [{name: query}, {name: drop}]
    metadata: {stars: 3}
"""
).servers[0]


@pytest.fixture
def kept(tmp_path: Path) -> Profiles:
    return Profiles(tmp_path)


def test_the_default_profile_is_there_and_empty_and_others_are_not(kept: Profiles) -> None:
    assert kept.get() == Profile(name="default")
    assert kept.names() == ["default"]
    with pytest.raises(NotFound, match="'work'"):
        kept.get("work")


def test_a_snapshot_stays_what_it_was_until_it_is_replaced(kept: Profiles) -> None:
    kept.enable("default", CLOCK)
    newer = msgspec.structs.replace(CLOCK, package="pypi:mcp-server-time==2027.1.1")
    with pytest.raises(Conflict, match="another entry"):
        kept.enable("default", newer)
    assert kept.get().servers[0].server == CLOCK
    kept.edit("default", lambda old: choose(old, enable=[], disable=["clock.*"], ask=[], no_ask=[], known=lambda _: []))
    kept.enable("default", newer, replace=True)
    assert kept.get().servers == (Enabled(server=newer, tools=()),)
    kept.disable("default", "clock")
    assert kept.get().servers == ()
    with pytest.raises(NotFound, match="no server 'clock'"):
        kept.disable("default", "clock")


def test_reading_again_is_the_same_object_until_the_file_changes(kept: Profiles, tmp_path: Path) -> None:
    kept.put(Profile(name="work", servers=(Enabled(server=CLOCK),)))
    assert kept.get("work") is kept.get("work")
    Profiles(tmp_path).disable("work", "clock")
    assert kept.get("work").servers == ()


def test_configuration_is_put_in_where_it_is_run_and_kept_apart_where_it_is_stored(kept: Profiles) -> None:
    kept.put(Profile(name="work", servers=(Enabled(server=DB), Enabled(server=CLOCK))))
    assert kept.get("work").servers[0].server.env == {"HOST": "{{my.db.host}}"}
    kept.edit("work", lambda old: configure(old, {"my.db.host": "h", "my.db.paths": ["/a", "/b"]}, []))
    run, stored = kept.get("work").servers[0].server, kept.stored("work").servers[0].server
    assert (run.env, run.command) == ({"HOST": "h"}, ("/a", "/b"))
    assert (stored.env, stored.config) == ({"HOST": "{{my.db.host}}"}, {"host": "h", "paths": ["/a", "/b"]})
    assert look_up(kept.stored("work"), "my.db.paths") == ["/a", "/b"]
    kept.edit("work", lambda old: configure(old, {}, ["my.db.host"]))
    with pytest.raises(NotFound):
        look_up(kept.stored("work"), "my.db.host")


def test_tools_are_let_through_and_kept_back(kept: Profiles) -> None:
    profile = Profile(name="work", servers=(Enabled(server=DB), Enabled(server=CLOCK)))

    def after(known: list[str] | None = None, **asked: list[str]) -> Enabled:
        whole = {"enable": [], "disable": [], "ask": [], "no_ask": [], **asked}
        return choose(profile, **whole, known=lambda _: known or []).servers[0]

    assert after(disable=["my.db.drop"]).tools == ("query",)
    assert after(["a", "b"], disable=["my.db.b"]).tools == ("a",)
    assert after(disable=["my.db.*"], enable=["my.db.query"]).tools == ()
    assert after(ask=["my.db.*"]).approve == ("*",)
    assert after(ask=["my.db.a", "my.db.b"], no_ask=["my.db.a"]).approve == ("b",)
    with pytest.raises(InvalidRequest, match="not known yet"):
        choose(profile, enable=[], disable=["clock.x"], ask=[], no_ask=[], known=lambda _: [])
    with pytest.raises(NotFound):
        choose(profile, enable=["nobody.x"], disable=[], ask=[], no_ask=[], known=lambda _: [])


@pytest.mark.parametrize("name", ["", "../x", "A", "a/b", ".lock", "x" * 65, "a b", "-a"])
def test_names_that_could_be_anything_else_are_refused(kept: Profiles, name: str) -> None:
    with pytest.raises(InvalidRequest):
        kept.put(Profile(name=name))
    with pytest.raises(InvalidRequest):
        kept.get(name)


@pytest.mark.parametrize("names", [("a", "a"), ("a", "A"), ("a__b",), ("../a",), ("",)])
def test_servers_names_are_one_of_a_kind_and_fit(kept: Profiles, names: tuple[str, ...]) -> None:
    servers = tuple(Enabled(server=Server(name=name, kind="process")) for name in names)
    with pytest.raises(InvalidRequest):
        kept.put(Profile(name="work", servers=servers))
    assert kept.names() == ["default"]


def test_a_broken_file_is_named_and_the_others_go_on(kept: Profiles) -> None:
    kept.put(Profile(name="good"))
    (kept.folder / "bad.json").write_text('{"name": "bad", "servers": 3}')
    assert [one.name for one in kept.list()] == ["default", "good"]
    assert "bad.json" in kept.broken()["bad"]
    with pytest.raises(InvalidRequest, match=r"bad\.json.*servers"):
        kept.get("bad")


def test_nobody_else_may_look(kept: Profiles) -> None:
    kept.put(Profile(name="work"))
    assert kept.folder.stat().st_mode & 0o077 == 0


def test_changes_of_many_threads_and_processes_are_all_kept(kept: Profiles, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dockyard.tools.profiles import Profiles;"
        "from dockyard.tools.model import Server; kept = Profiles(Path(sys.argv[1]));"
        "[kept.enable('default', Server(name=f'{sys.argv[2]}{n}', kind='process')) for n in range(10)]"
    )
    others = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in ("p", "q")]
    threads = [
        threading.Thread(
            target=lambda at=at: [kept.enable("default", Server(name=f"t{at}-{n}", kind="process")) for n in range(10)]
        )
        for at in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait(60) for other in others] == [0, 0]
    assert len(kept.get().servers) == 50
    assert not [path for path in kept.folder.iterdir() if path.name not in ("default.json", ".lock")]


def full() -> Profile:
    db = msgspec.structs.replace(DB, config={"host": "h"})
    return Profile(
        name="work",
        description="For work",
        servers=(Enabled(server=db, tools=("query",), approve=("drop",)), Enabled(server=CLOCK)),
        search=True,
    )


def test_ours_comes_back_whole(kept: Profiles) -> None:
    kept.put(full())
    text = kept.export("work")
    with pytest.raises(Conflict):
        kept.load(text)
    assert kept.load(text, name="copy") == msgspec.structs.replace(full(), name="copy")
    assert kept.load(text, replace=True) == full()


def test_docker_s_profiles_are_read_and_written(kept: Profiles) -> None:
    containers = msgspec.structs.replace(full(), servers=full().servers[:1])
    kept.put(containers)
    written = yaml.safe_load(kept.export("work", "docker"))
    item = written["servers"][0]
    assert (written["version"], written["id"], written["name"]) == (1, "work", "For work")
    assert (item["type"], item["image"], item["tools"]) == ("image", "myorg/db@sha256:abc", ["query"])
    assert item["config"] == {"host": "h"}
    assert item["snapshot"]["server"]["metadata"] == {"stars": 3}
    again = kept.load(kept.export("work", "docker"), name="again")
    assert again.servers[0].tools == ("query",)
    assert again.servers[0].server.secrets == (Secret(name="my.db.key", env="KEY"),)
    assert kept.get("again").servers[0].server.env == {"HOST": "h"}
    assert yaml.safe_load(kept.export("again", "docker"))["servers"] == written["servers"]
    kept.put(full())
    with pytest.raises(InvalidRequest, match="clock"):
        kept.export("work", "docker")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "no profile"),
        ("id: a\nservers: [{type: ship}]", r"servers\[0\]: type 'ship'"),
        ("id: a\nservers: [3]", r"servers\[0\]: is a number"),
        ("id: a\nservers: [{type: registry, source: x}]", "no snapshot"),
        ("id: a\nversion: 7\nservers: []", "version 7"),
        ("id: a\n  b: c", "line 2"),
        ('{"format": "dockyard-profile", "name": 3}', "not one of ours"),
    ],
)
def test_what_is_no_profile_is_refused(kept: Profiles, text: str, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        kept.load(text)
    assert kept.names() == ["default"]


@pytest.mark.parametrize("format", ["dockyard", "docker"])
def test_profiles_travel_through_a_registry(tmp_path: Path, format: str) -> None:
    settings = Settings(home=str(tmp_path), starter="")
    mine = Profiles(tmp_path, Store(tmp_path / "store"))
    sent = msgspec.structs.replace(full(), servers=full().servers[:1])
    mine.put(sent)
    with MemoryRegistry() as memory:
        name = f"{memory.host}/team/work:v1"
        digest = mine.push("work", name, settings, format=format)
        assert mine.push("work", name, settings, format=format) == digest
        manifest = json.loads(memory.repositories["team/work"].manifests[digest][1])
        theirs = Profiles(tmp_path / "other", Store(tmp_path / "other" / "store"))
        got = theirs.pull(name, settings, name="got")
        if format == "dockyard":
            assert got == msgspec.structs.replace(sent, name="got")
        assert theirs.get("got").servers[0].server.env == {"HOST": "h"}
        # The store's own pull knows such artifacts as well.
        plain = Store(tmp_path / "plain" / "store")
        assert pull(plain, name, settings).descriptor.digest == digest
        with pytest.raises(UnsupportedFormat, match="profile"):
            catalog.load(f"oci://{name}", settings, plain)
    vendor = "docker" if format == "docker" else "dockyard"
    assert manifest["artifactType"] == f"application/vnd.{vendor}.mcp.profile.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    assert [layer["mediaType"] for layer in manifest["layers"]] == ["application/json"]
