"""The store of secrets, what servers get of it, and its verbs."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.errors import InvalidRequest, NotFound, SettingsError
from dockyard.tools.model import Secret, Server
from dockyard.tools.secrets import SecretStore

VALUE = "s3cr3t-värde-\n-line"


def test_values_are_kept_encrypted_and_for_their_owner_only(tmp_path: Path) -> None:
    store = SecretStore(tmp_path)
    assert store.list() == []
    store.set("github.token", VALUE)
    store.set("a", "other")
    assert SecretStore(tmp_path).get("github.token") == VALUE
    assert store.list() == ["a", "github.token"]
    for path in (tmp_path / "mcp").iterdir():
        assert VALUE.encode() not in path.read_bytes()
        assert b"s3cr3t" not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    store.remove("a")
    assert SecretStore(tmp_path).list() == ["github.token"]
    with pytest.raises(NotFound):
        store.remove("a")


def test_what_another_process_sets_is_seen(tmp_path: Path) -> None:
    store = SecretStore(tmp_path)
    store.set("a", "first one")
    SecretStore(tmp_path).set("a", "second one")
    assert store.get("a") == "second one"


@pytest.mark.parametrize(("name", "value"), [("", "x"), ("a b", "x"), ("../a", "x"), ("a", ""), ("a", "x\0y")])
def test_bad_names_and_values_are_refused_without_being_said(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(InvalidRequest):
        SecretStore(tmp_path).set(name, value)


def test_a_lost_key_is_told(tmp_path: Path) -> None:
    SecretStore(tmp_path).set("a", "value")
    key = tmp_path / "mcp" / "secrets.key"
    other = SecretStore(tmp_path / "other")
    other.set("b", "value")
    key.write_bytes((tmp_path / "other" / "mcp" / "secrets.key").read_bytes())
    with pytest.raises(SettingsError, match="can't be read with the key"):
        SecretStore(tmp_path).list()
    key.unlink()
    with pytest.raises(SettingsError, match="is gone"):
        SecretStore(tmp_path).list()


def test_a_server_gets_what_it_declares_and_no_more(tmp_path: Path) -> None:
    store = SecretStore(tmp_path)
    store.set("a.key", "from store")
    store.set("b.key", "another's")
    server = Server(
        name="a", kind="process", secrets=(Secret(name="a.key", env="A"), Secret(name="a.other", env="OTHER"))
    )
    assert store.of(server, {"DOCKYARD_SECRET_A_OTHER": "from environment", "HOME": "/root"}) == {
        "a.key": "from store",
        "a.other": "from environment",
    }
    with pytest.raises(NotFound, match=r"a\.other"):
        store.of(server, {"OTHER": "a variable that an entry names, as any entry may"})


@given(value=st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(lambda text: "\0" not in text))
def test_any_value_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    home = tmp_path_factory.mktemp("home")
    SecretStore(home).set("a", value)
    assert SecretStore(home).get("a") == value


def verb(home: Path, *words: str, value: str = "") -> subprocess.CompletedProcess[str]:
    code = f"from dockyard.cli.mcp_secret import app; app({list(words)!r})"
    return subprocess.run(
        [sys.executable, "-c", code],
        input=value,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "DOCKYARD_HOME": str(home)},
    )


def test_the_verbs_set_list_and_remove_and_never_print_a_value(tmp_path: Path) -> None:
    done = verb(tmp_path, "set", "a.key", value="the value itself\n")
    assert (done.returncode, done.stdout) == (0, "set a.key\n")
    listed = verb(tmp_path, "ls", "--json")
    assert '"a.key"' in listed.stdout
    assert "the value" not in done.stdout + done.stderr + listed.stdout + listed.stderr
    assert SecretStore(tmp_path).get("a.key") == "the value itself"
    assert "not redacted" in verb(tmp_path, "set", "pin", value="123").stderr
    assert verb(tmp_path, "rm", "a.key").stdout == "removed a.key\n"
    assert SecretStore(tmp_path).list() == ["pin"]
