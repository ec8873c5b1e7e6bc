"""The built-in tools about models: through a real server's doors, by key; and what is said where nothing runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Serving, serving

from dockyard.cli import call
from dockyard.tools import platform
from dockyard.tools.catalog.shelf import Catalogues
from dockyard.tools.model import Enabled, Profile, Server
from dockyard.tools.profiles import Profiles

pytest.importorskip("mcp")

ANN, BOSS = "ann-has-a-long-secret", "boss-has-a-long-secret"
Use = Callable[..., Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("platform")
    profiles = Profiles(home)
    profiles.enable("default", Catalogues(home).find("platform")[1])
    disguised = Server(name="clock", kind="platform", labels={"*": ()})
    profiles.put(Profile(name="disguised", servers=(Enabled(server=disguised),)))
    rules = ["allow platform/load_model", "allow platform/unload_model", "deny */server_logs"]
    with serving(home, api_keys=[ANN, f"{BOSS}:manage"], tools_rules=rules) as found:
        yield found


@pytest.fixture
def use(server: Serving) -> Use:
    """Use a tool with the manager's key, or another's; the result's structure or text, or the error."""

    def run(tool: str, key: str = BOSS, profile: str = "default", approval: str | None = None, **arguments: Any) -> Any:
        body = {"tool": tool, "arguments": arguments, "profile": profile, "approval": approval}
        head = {"authorization": f"Bearer {key}"}
        told = httpx.post(f"{server.url}/api/dockyard/mcp/call", json=body, headers=head, timeout=60).json()
        if "error" in told:
            return told["error"]
        return told.get("structured") or told["content"][0]["text"]

    return run


def listed(server: Serving, key: str, profile: str = "default") -> dict[str, Any]:
    head = {"authorization": f"Bearer {key}"}
    told = httpx.get(
        f"{server.url}/api/dockyard/mcp/tools", params={"profile": profile}, headers=head, timeout=60
    ).json()
    return {tool["name"]: tool for tool in told["tools"]}


def test_only_who_manages_knows_of_them(server: Serving, use: Use) -> None:
    assert listed(server, ANN) == {}
    assert set(listed(server, BOSS)) == {*platform.READS, *platform.CHANGES} - {"server_logs"}
    refused = use("platform__list_models", key=ANN)
    assert refused["code"] == "tool_denied"
    assert "scope 'manage'" in refused["message"]
    assert use("clock__usage", key=ANN, profile="disguised")["code"] == "tool_denied", "whatever it is called"


def test_models_are_loaded_and_unloaded(use: Use) -> None:
    assert use("platform__load_model", model="echo")["state"] == "ready"
    (loaded,) = use("platform__loaded_models")["models"]
    assert loaded["engine"] == "echo"
    assert use("platform__list_models") == {"models": []}
    status = use("platform__server_status")
    assert (status["models"], status["keys"]) == (1, "required")
    assert "usage" in use("platform__usage", hours=1)
    assert use("platform__unload_model", model="echo") == {"unloaded": 1}
    assert use("platform__loaded_models") == {"models": []}
    assert "no-such-model" in use("platform__load_model", model="no-such-model")
    assert "hours" in use("platform__usage", hours=-1)["message"]


def test_what_changes_something_asks_a_person(server: Serving, use: Use) -> None:
    asked = use("platform__pull_model", model="echo")
    assert asked["code"] == "approval_required"
    assert "changes what runs here" in asked["message"]
    assert use("clock__load_model", profile="disguised", model="echo")["code"] == "approval_required"
    assert use("platform__server_logs")["code"] == "tool_denied", "a rule of the operator goes first"


def test_hints_say_what_reads(server: Serving) -> None:
    tools = listed(server, BOSS)
    assert tools["stop_container"]["labels"] == ["destructive"]
    assert tools["container_logs"]["labels"] == ["private-data", "untrusted-in"]
    assert tools["container_logs"]["schema"]["properties"]["tail"]["maximum"] == 2000


def test_verbs_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKYARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")

    def mcp(*words: str, code: int = 0) -> Any:
        capfd.readouterr()
        assert call(["mcp", *words]) == code
        return capfd.readouterr()

    rows = json.loads(mcp("server", "ls", "--json").out)
    assert [(row["name"], row["catalog"], row["enabled"]) for row in rows] == [("platform", "builtin", False)]
    assert "Dockyard itself" in mcp("server", "inspect", "platform").out
    assert "can't be changed" in mcp("catalog", "rm", "builtin", code=2).err
    mcp("server", "enable", "platform")
    assert mcp("tools", "count").out.strip() == str(len(platform.READS) + len(platform.CHANGES))
    assert json.loads(mcp("call", "platform__list_models").out) == {"models": []}
    nothing = mcp("call", "platform__loaded_models", code=1).out
    assert "no Dockyard server is running" in nothing
    assert "dockyard serve" in nothing
    missing = mcp("call", "platform__list_containers", code=1).out
    assert f"no container engine answers at unix://{tmp_path}/nothing.sock" in missing
    assert "DOCKER_HOST" in missing
    monkeypatch.setenv("DOCKER_HOST", "ssh://somewhere")
    assert "can't be asked from here" in mcp("call", "platform__list_containers", code=1).out
    needed = mcp("call", "platform__stop_container", "name=web", code=5)
    assert "dockyard mcp approvals grant" in needed.err


def test_the_built_in_catalogue_is_not_a_file(tmp_path: Path) -> None:
    shelf = Catalogues(tmp_path)
    mine = Server(name="platform", kind="remote", url="https://example.com/mcp")
    shelf.add(mine)
    assert shelf.find("platform") == ("own", mine), "what is declared here goes first"
    assert shelf.find("builtin/platform")[1] == platform.SERVER
