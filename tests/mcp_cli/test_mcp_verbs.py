"""``dockyard mcp`` as a user has it: words, files, exit codes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dockyard.cli import call

PLAIN = Path(__file__).parent / "plain_tools.py"
PYTHON = next((path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if Path(path).exists()), sys.executable)
Run = Callable[..., "Done"]

needs_sandbox = pytest.mark.skipif(shutil.which("bwrap") is None, reason="tool servers run in bubblewrap")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


class Done(NamedTuple):
    """What a command printed."""

    stdout: str
    stderr: str


@pytest.fixture
def mcp(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run ``dockyard mcp …`` to its end in this process; ``code`` is the exit code that it must have."""
    monkeypatch.setenv("DOCKYARD_HOME", str(home))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(*words: str, stdin: str = "", code: int = 0) -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capfd.readouterr()
        got = call(["mcp", *words])
        done = Done(*capfd.readouterr())
        assert got == code, done
        return done

    return run


def value(done: Done) -> Any:
    return json.loads(done.stdout)


def test_catalogues_are_added_shown_exported_and_removed(mcp: Run, tmp_path: Path) -> None:
    text = "name: Team's\nregistry:\n  a: {type: server, image: x, metadata: {n: 1}}\n  odd: {type: alien}\n"
    (tmp_path / "c.yaml").write_text(text)
    done = mcp("catalog", "add", "c.yaml")
    assert done.stdout == "team-s: 1 servers\n"
    assert "left out: odd (line 4): type 'alien' is not known" in done.stderr
    mcp("catalog", "add", "c.yaml", code=5)
    mcp("catalog", "add", "c.yaml", "--refresh")
    mcp("catalog", "add", "-", "--name", "piped", stdin='{"mcpServers": {"b": {"command": "run", "args": ["it"]}}}')
    assert [(one["name"], one["format"]) for one in value(mcp("catalog", "ls", "--json"))] == [
        ("piped", "mcp-servers"),
        ("team-s", "docker"),
    ]
    assert value(mcp("catalog", "show", "team-s", "--json"))["servers"][0]["image"] == "x"
    assert "metadata:\n      n: 1" in mcp("catalog", "export", "team-s", "-f", "docker").stdout
    assert "docker catalogues have no type" in mcp("catalog", "export", "piped", "-f", "docker", code=2).stderr
    exported = mcp("catalog", "export", "team-s", "-f", "mcp-servers", "-o", "out.json")
    assert exported.stdout == ""
    assert "docker" in (tmp_path / "out.json").read_text()
    mcp("catalog", "import", "out.json")
    assert {one["catalog"] for one in value(mcp("server", "ls", "--json"))} == {"builtin", "own", "piped", "team-s"}
    mcp("catalog", "rm", "piped", "team-s")
    assert "no catalogue 'piped'" in mcp("catalog", "show", "piped", code=3).stderr


def test_bad_catalogues_are_told_with_their_line(mcp: Run) -> None:
    assert "line 3" in mcp("catalog", "add", "-", stdin="registry:\n  a: 1\n b: 2\n", code=2).stderr
    assert "contains itself" in mcp("catalog", "add", "-", stdin="registry: &x {a: *x}\n", code=2).stderr
    assert "no file" in mcp("catalog", "add", "none.yaml", code=3).stderr
    assert mcp("catalog", "ls", "--json").stdout.strip() == "[]"


def test_servers_are_declared_enabled_and_configured(mcp: Run) -> None:
    mcp("server", "add", "db", "--image", "x@sha256:1", "-e", "HOST={{db.host}}", "--secret", "db.key=KEY", "--", "go")
    mcp("server", "add", "both", "--image", "x", "--url", "https://y", code=2)
    mcp("server", "add", "none", code=2)
    mcp("server", "add", "a__b", "--url", "https://y", code=2)
    assert "far can't run yet: server 'far': url 'ftp://y'" in mcp("server", "add", "far", "--url", "ftp://y").stderr
    shown = value(mcp("server", "inspect", "db", "--json"))
    assert (shown["kind"], shown["command"], shown["secrets"]) == (
        "container",
        ["go"],
        [{"name": "db.key", "env": "KEY"}],
    )
    mcp("profile", "create", "work", "-s", "db", "-d", "For work", "--search")
    mcp("profile", "create", "work", code=5)
    mcp("profile", "config", "work", "--set", "db.host=h", "--set", 'db.list=["a", 1]')
    assert mcp("profile", "config", "work", "--get", "db.host").stdout == "h\n"
    assert value(mcp("profile", "config", "work", "--json")) == {"db": {"host": "h", "list": ["a", 1]}}
    mcp("profile", "config", "work", "--del", "db.list")
    mcp("profile", "tools", "work", "--enable", "db.query", "--ask", "db.drop")
    mcp("profile", "tools", "work", "--disable", "db.*", "--enable", "db.query")
    mcp("profile", "edit", "work", "--no-search")
    shown = value(mcp("profile", "show", "work", "--json"))
    assert (shown["description"], shown["search"]) == ("For work", False)
    assert shown["servers"][0]["server"]["config"] == {"host": "h"}
    assert shown["servers"][0]["approve"] == ["drop"]
    text = mcp("profile", "export", "work").stdout
    mcp("profile", "rm", "work")
    mcp("profile", "import", "-", "--name", "again", stdin=text)
    assert [one["name"] for one in value(mcp("profile", "ls", "--json"))] == ["again", "default"]
    mcp("server", "disable", "db", "-p", "again")
    mcp("server", "rm", "db")
    assert "no catalogue has a server 'db'" in mcp("server", "enable", "db", code=3).stderr


def test_clients_are_connected_and_disconnected(mcp: Run, tmp_path: Path) -> None:
    path = Path(mcp("client", "connect", "cursor").stdout.strip())
    assert json.loads((tmp_path / path).read_text())["mcpServers"]["dockyard"]["args"][-1] == "default"
    mcp("profile", "create", "work")
    mcp("client", "connect", "codex", "-p", "work", "--global")
    assert "[mcp_servers.dockyard-work]" in (tmp_path / ".codex" / "config.toml").read_text()
    listed = {one["client"]: one["entries"] for one in value(mcp("client", "ls", "--json"))}
    assert listed["cursor"] == {"dockyard": "default"}
    listed = {one["client"]: one["entries"] for one in value(mcp("client", "ls", "-g", "--json"))}
    assert listed["codex"] == {"dockyard-work": "work"}
    mcp("client", "disconnect", "cursor")
    mcp("client", "disconnect", "cursor", code=3)
    mcp("client", "connect", "cursor", "-p", "nobody", code=3)
    mcp("client", "connect", "emacs", code=3)


@pytest.fixture
def plain(mcp: Run) -> Run:
    """The same, with a real tool server enabled."""
    pytest.importorskip("mcp")
    mcp("server", "add", "plain", "--enable", "--read", str(PLAIN), "--", PYTHON, str(PLAIN))
    return mcp


@needs_sandbox
def test_tools_are_listed_called_and_chosen(plain: Run) -> None:
    assert [one["id"] for one in value(plain("tools", "ls", "--json"))] == ["plain__sum", "plain__shout"]
    assert plain("tools", "count").stdout == "2\n"
    assert "description" in value(plain("tools", "inspect", "plain__sum", "--json"))
    assert plain("call", "plain__sum", "a=1", "b=2.5").stdout == "3.5\n"
    assert value(plain("call", "plain__shout", "text=hi", "--json"))["content"][0]["text"] == "HI"
    plain("call", "plain__shout", "--arguments", "{}", code=1)
    plain("call", "plain__sum", "a=1", code=2)
    plain("call", "plain__sum", "a", code=2)
    assert "did you mean 'plain__sum'" in plain("call", "plain__sums", "a=1", code=3).stderr
    plain("tools", "disable", "plain.sum")
    assert [one["id"] for one in value(plain("tools", "ls", "--json"))] == ["plain__shout"]
    plain("tools", "enable", "plain.sum")
    assert plain("tools", "count").stdout == "2\n"
    assert {one["decision"] for one in value(plain("audit", "ls", "--json"))} == {"allow"}
    assert "fit together" in plain("audit", "verify").stdout


@needs_sandbox
def test_a_locked_run_refuses_what_drifted_and_a_changed_tool_is_reviewed(plain: Run, tmp_path: Path) -> None:
    plain("lock")
    assert set(json.loads((tmp_path / "mcp.lock.json").read_text())["servers"]["plain"]["tools"]) == {"sum", "shout"}
    assert plain("lock", "--check").stdout == "all is as it was locked\n"
    assert plain("call", "--locked", "plain__sum", "a=1", "b=2").stdout == "3\n"
    words = (
        "server",
        "add",
        "plain",
        "--replace",
        "--enable",
        "--read",
        str(PLAIN),
        "--",
        PYTHON,
        str(PLAIN),
        "Louder",
    )
    plain(*words)
    told = plain("call", "--locked", "plain__sum", "a=1", "b=2", code=5).stderr
    assert "plain: command\n- " in told
    assert "+ " in told
    assert "Louder" in told
    drift = value(plain("lock", "--check", "--json", code=1))["drift"]
    assert {one["what"] for one in drift} == {"command", "tool shout"}
    (held,) = value(plain("quarantine", "ls", "--json"))
    assert (held["tool"], held["why"]) == ("shout", "changed")
    assert "+description: Louder" in plain("quarantine", "review", "plain.shout").stdout
    assert "plain__shout" not in plain("tools", "ls").stdout
    plain("quarantine", "review", "plain.shout", "--accept")
    assert "plain__shout" in plain("tools", "ls").stdout
    plain("quarantine", "review", "plain.shout", "--accept", code=3)


@needs_sandbox
def test_a_call_that_asks_waits_for_a_person_and_is_good_once(plain: Run) -> None:
    plain("profile", "tools", "default", "--ask", "plain.sum")
    plain("call", "plain__sum", "a=1", "b=2", code=5)
    (waiting,) = value(plain("approvals", "ls", "--json"))
    assert f"--approval {waiting['id']}" in plain("call", "plain__sum", "a=1", "b=2", code=5).stderr
    assert (waiting["tool"], waiting["arguments"]) == ("plain__sum", {"a": 1, "b": 2})
    plain("approvals", "grant", waiting["id"])
    plain("call", "plain__sum", "a=1", "b=3", "--approval", waiting["id"], code=5)
    assert plain("call", "plain__sum", "a=1", "b=2", "--approval", waiting["id"]).stdout == "3\n"
    plain("call", "plain__sum", "a=1", "b=2", "--approval", waiting["id"], code=5)
    plain("approvals", "grant", "apr_none", code=3)


@contextlib.contextmanager
def serving(home: Path) -> Iterator[None]:
    environ = {**os.environ, "DOCKYARD_HOME": str(home)}
    server = subprocess.Popen(
        [sys.executable, "-m", "dockyard", "serve", "--port", "0"], env=environ, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 60
        while not (home / "server.json").exists():
            assert server.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait(30)


@needs_sandbox
def test_a_running_server_is_asked_where_there_is_one(plain: Run, home: Path) -> None:
    with serving(home):
        assert [one["id"] for one in value(plain("tools", "ls", "--json"))] == ["plain__sum", "plain__shout"]
        assert plain("call", "plain__sum", "a=1", "b=2").stdout == "3\n"
        assert "did you mean" in plain("call", "plain__su", "a=1", "b=2", code=3).stderr
        plain("tools", "disable", "plain.sum")
        assert plain("tools", "count").stdout == "1\n"
        who = {one["client"] for one in value(plain("audit", "ls", "--json"))}
    assert who == {"api"}


@pytest.mark.parametrize(
    "words",
    [["--help"], *([noun, "--help"] for noun in ("catalog", "server", "profile", "lock", "tools", "client"))],
    ids=" ".join,
)
def test_help_imports_no_part_of_the_tools(words: list[str]) -> None:
    probe = (
        "import sys; from dockyard.cli import call; code = call(['mcp', *sys.argv[1:]]);"
        "heavy = ('dockyard.tools', 'mcp', 'yaml', 'pydantic', 'msgspec');"
        "print([name for name in sys.modules if name.startswith(heavy)], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", probe, *words], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("Usage: dockyard mcp")
    assert done.stderr.strip() == "[]"


@needs_sandbox
def test_a_server_that_lacks_configuration_says_so_and_the_others_go_on(
    plain: Run, caplog: pytest.LogCaptureFixture
) -> None:
    entry = {
        "type": "process",
        "command": [PYTHON, str(PLAIN), "{{needy.words}}"],
        "sandbox": {"read": [str(PLAIN)]},
        "config": [{"name": "needy", "properties": {"words": {"type": "string"}}, "required": ["words"]}],
    }
    plain(
        "catalog", "add", "-", "--name", "team", stdin=json.dumps({"format": "dockyard", "registry": {"needy": entry}})
    )
    assert "needs configuration: words" in plain("server", "enable", "needy").stderr
    assert value(plain("tools", "count", "--json"))["servers"] == {"plain": 2}
    caplog.clear()
    assert "hint: dockyard mcp profile config" in plain("call", "needy__shout", "text=x", code=1).stderr
    assert caplog.text.count("are left out") == 1
    plain("profile", "config", "default", "--set", "needy.words=Whispers")
    listed = {one["id"]: one["description"] for one in value(plain("tools", "ls", "--json"))}
    assert listed["needy__shout"] == "Whispers"
    assert len(listed) == 4
