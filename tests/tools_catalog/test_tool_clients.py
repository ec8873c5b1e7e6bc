"""Clients' own files: one entry in, one entry out, and not a character of anything else."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dockyard.errors import InvalidRequest, NotFound
from dockyard.tools import clients
from dockyard.tools.clients_text import parse, put

VALUE = {"command": "/x/dockyard", "args": ["mcp", "gateway", 'r"un'], "env": {"A B": "ü\n"}}
KEY = ("mcpServers", "dockyard")

JSONC = """{
    // my settings
    "theme": "dark", /* x */
    "mcpServers": {
        "a": {"command": "x", "args": ["}", "\\"//"]}, // keep
        "b": {"command": "y"} // last
    },
}
"""
TOML = """# top
model = "o4"

[mcp_servers.other] # c
command = "x"
# about next
[tui]
a = 1
"""
YAML = """# goose
GOOSE_MODEL: x
extensions:
  # dev
  developer:
    enabled: true
  # about other
  other:
    type: stdio
# end
z: 1
"""


@pytest.mark.parametrize(
    ("format", "text", "table"),
    [("json", JSONC, "mcpServers"), ("toml", TOML, "mcp_servers"), ("yaml", YAML, "extensions")],
)
def test_what_was_there_is_as_it_was_when_the_entry_is_out_again(format: str, text: str, table: str) -> None:
    there = put(format, text, (table, "dockyard"), VALUE)
    assert parse(format, there, "x")[table]["dockyard"] == VALUE
    again = put(format, there, (table, "dockyard"), {"command": "other"})
    assert parse(format, again, "x")[table]["dockyard"] == {"command": "other"}
    for before, after in zip(text.splitlines(), text.splitlines(), strict=True):
        assert before in there and before == after if "last" not in before else True
    assert put(format, there, (table, "dockyard"), None) == text
    assert put(format, again, (table, "dockyard"), None) == text


@pytest.mark.parametrize(
    "text", ["", "{}", '{"x":1}', '{"x": 1,}\n', '{"mcpServers":{}}', '{"mcpServers": {"a": {}}}', "// c\n"]
)
def test_json_of_any_layout(text: str) -> None:
    there = put("json", text, KEY, VALUE)
    before = parse("json", text, "x")
    assert parse("json", there, "x") == {**before, "mcpServers": {**before.get("mcpServers", {}), "dockyard": VALUE}}
    left = parse("json", put("json", there, KEY, None), "x")
    assert {**left, "mcpServers": left.get("mcpServers") or {}} == {
        **before,
        "mcpServers": before.get("mcpServers", {}),
    }


@pytest.mark.parametrize(
    "text", ["", "extensions: {}\n", "extensions:\nz: 1\n", "a: 1", "extensions:   # mine\n  a: 1\n"]
)
def test_yaml_of_any_layout(text: str) -> None:
    key = ("extensions", "dockyard")
    there = put("yaml", text, key, VALUE)
    before = parse("yaml", text, "x")
    assert parse("yaml", there, "x") == {
        **before,
        "extensions": {**(before.get("extensions") or {}), "dockyard": VALUE},
    }
    assert "dockyard" not in (parse("yaml", put("yaml", there, key, None), "x").get("extensions") or {})


def test_a_toml_table_with_tables_in_it_goes_as_a_whole() -> None:
    text = '[mcp_servers.dockyard]\ncommand = "x"\n\n[mcp_servers.dockyard.env]\nA = "1"\n\n# next\n[a]\nb = 1\n'
    assert tomllib.loads(put("toml", text, ("mcp_servers", "dockyard"), None)) == {"a": {"b": 1}}
    assert "# next" in put("toml", text, ("mcp_servers", "dockyard"), None)


leaves = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)
files_ = st.fixed_dictionaries(
    {}, optional={"a": values, "mcpServers": st.dictionaries(st.text(max_size=4), values, max_size=3), "z": values}
)
spaces = st.sampled_from(["", " ", "\n", "\n  ", "\t", " // c\n", "/* { */"])


@st.composite
def jsonc(draw: st.DrawFn, value: Any) -> str:
    """The value as somebody may have written it."""

    def told(value: Any) -> str:
        gap = draw(spaces)
        if isinstance(value, dict):
            inner = [f"{draw(spaces)}{json.dumps(key)}{gap}:{told(one)}" for key, one in value.items()]
        elif isinstance(value, list):
            inner = [told(one) for one in value]
        else:
            return f"{gap}{json.dumps(value)}{gap}"
        comma = "," if inner and draw(st.booleans()) else ""
        pair = "{}" if isinstance(value, dict) else "[]"
        return f"{gap}{pair[0]}{(gap + ',').join(inner)}{comma}{gap}{pair[1]}{draw(spaces)}"

    return told(value)


@given(st.data(), files_)
def test_any_json_with_comments_keeps_all_else(data: st.DataObject, value: dict[str, Any]) -> None:
    text = data.draw(jsonc(value))
    before = parse("json", text, "x")
    assert before == value
    there = put("json", text, KEY, VALUE)
    assert parse("json", there, "x") == {**value, "mcpServers": {**value.get("mcpServers", {}), "dockyard": VALUE}}
    left = parse("json", put("json", there, KEY, None), "x")
    assert left == {**value, "mcpServers": value.get("mcpServers", {})}
    for comment in ("// c", "/* { */"):
        assert there.count(comment) == text.count(comment)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.dictionaries(st.text("ab", max_size=3), leaves, max_size=2)
    )
)
def test_any_plain_yaml_keeps_all_else(value: dict[str, Any]) -> None:
    text = yaml.safe_dump({"first": 1, "extensions": value, "z": [1]}, sort_keys=False)
    if not value:
        text = text.replace("extensions: {}", "extensions:")
    there = put("yaml", text, ("extensions", "dockyard"), VALUE)
    assert parse("yaml", there, "x") == {"first": 1, "extensions": {**value, "dockyard": VALUE}, "z": [1]}
    left = put("yaml", there, ("extensions", "dockyard"), None)
    assert parse("yaml", left, "x") == {"first": 1, "extensions": value, "z": [1]}


@pytest.mark.parametrize("name", list(clients.known()))
def test_every_client_is_connected_and_disconnected(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CLAUDE_CONFIG_DIR", "CODEX_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = clients.place(name, None, system="linux")
    assert path.is_relative_to(tmp_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    format = clients.client(name).format
    before = {"json": '{\n  // mine\n  "x": {"y": 1}\n}\n', "toml": "# mine\nx = 1\n", "yaml": "# mine\nx: 1\n"}[format]
    path.write_text(before)
    path.chmod(0o640)
    clients.connect(name, "default", path)
    clients.connect(name, "work", path)
    clients.connect(name, "work", path)
    text = path.read_text()
    assert clients.connection(name, path).entries == {"dockyard": "default", "dockyard-work": "work"}
    assert "mine" in text
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.with_name(path.name + clients.BACKUP).exists()
    assert clients.disconnect(name, "default", path)
    assert clients.connection(name, path).entries == {"dockyard-work": "work"}
    assert clients.disconnect(name, "work", path)
    assert not clients.disconnect(name, "work", path)
    assert path.read_text() == before
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in path.parent.iterdir() if not one.is_dir()] == [path.name]


@pytest.mark.parametrize("name", list(clients.known()))
def test_a_file_that_was_made_for_us_goes_with_us(name: str, tmp_path: Path) -> None:
    path = tmp_path / "settings"
    clients.connect(name, "default", path)
    clients.connect(name, "work", path)
    assert clients.disconnect(name, "default", path)
    assert clients.disconnect(name, "work", path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cursor", "{}"),
        ("cursor", '{"x":1}'),
        ("cursor", '{"mcpServers":{}}'),
        ("cursor", '{"mcpServers": {"a": {"command": "x"}}}\n'),
        ("cursor", '{\n  "mcpServers": {\n    // none yet\n  }\n}\n'),
        ("goose", "extensions: {}\n"),
        ("goose", "extensions:\n  a:\n    cmd: x\n"),
        ("goose", "GOOSE_MODEL: x\n"),
        ("codex", '# c\n[mcp_servers.a]\ncommand = "x"\n'),
    ],
)
def test_a_file_is_in_the_end_what_it_was(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "settings"
    path.write_text(text)
    clients.connect(name, "default", path)
    assert clients.disconnect(name, "default", path)
    assert path.read_text() == text
    assert len(list(tmp_path.iterdir())) == 1


def test_what_others_wrote_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text('{"x": 1}\n')
    clients.connect("cursor", "default", path)
    path.write_text(path.read_text().replace('"x": 1', '"x": 2, /* mine */ "y": [1]'))
    assert clients.disconnect("cursor", "default", path)
    assert path.read_text() == '{"x": 2, /* mine */ "y": [1]}\n'
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "new.json")
    clients.connect("cursor", "default", link)
    assert clients.disconnect("cursor", "default", link)
    assert link.is_symlink()
    assert json.loads(link.read_text()) == {}


def test_a_file_that_is_a_link_stays_one_and_a_new_one_is_made(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "mcp.json"
    real.parent.mkdir()
    real.write_text("{}")
    link = tmp_path / ".cursor" / "mcp.json"
    link.parent.mkdir()
    link.symlink_to(real)
    clients.connect("cursor", "default", link)
    assert link.is_symlink()
    assert "dockyard" in real.read_text()
    new = clients.place("vscode", tmp_path / "project")
    clients.connect("vscode", "default", new)
    entry = json.loads(new.read_text())["servers"]["dockyard"]
    assert entry["type"] == "stdio"
    assert entry["args"][-5:] == ["mcp", "gateway", "run", "--profile", "default"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cursor", '{"mcpServers": {'),
        ("cursor", '{"mcpServers": []}'),
        ("cursor", '{"a": 1, "a": 2}'),
        ("codex", "mcp_servers = {a = {}}\n"),
        ("codex", "x ="),
        ("goose", "extensions: {a: {b: 1}}\n"),
        ("goose", "a: [\n"),
    ],
)
def test_what_can_t_be_edited_without_loss_is_left_as_it_is(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(InvalidRequest):
        clients.connect(name, "default", path)
    assert path.read_text() == text
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_only_our_own_entries_count(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    entry = {"command": "docker", "args": ["mcp", "gateway", "run"]}
    path.write_text(json.dumps({"mcpServers": {"dockyard": entry}}))
    assert clients.connection("cursor", path).entries == {}
    path.write_text("nonsense: [")
    assert clients.connection("cursor", path).problem
    with pytest.raises(NotFound) as caught:
        clients.client("emacs")
    assert "claude-desktop" in str(caught.value.hint)
    with pytest.raises(InvalidRequest, match="no file in projects"):
        clients.place("claude-desktop", tmp_path)


def test_places_follow_the_system_and_its_variables() -> None:
    assert clients.place("claude-code", None, {"HOME": "/h", "CLAUDE_CONFIG_DIR": "/c"}) == Path("/c/.claude.json")
    assert clients.place("codex", None, {"HOME": "/h"}, "darwin") == Path("/h/.codex/config.toml")
    assert clients.place("vscode", None, {"HOME": "/h", "APPDATA": "/a"}, "win32") == Path("/a/Code/User/mcp.json")
    assert clients.place("claude-desktop", None, {"HOME": "/h"}, "darwin").parts[:3] == ("/", "h", "Library")
    with pytest.raises(InvalidRequest, match="not known"):
        clients.place("vscode", None, {"HOME": "/h"}, "win32")
