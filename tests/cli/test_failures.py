"""Failures: a sentence, a hint, an exit code; a traceback only for who asks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dockyard import errors
from dockyard.cli import call
from dockyard.cli._failure import exit_code

Capture = pytest.CaptureFixture[str]


def test_wrong_usage_is_2(capsys: Capture) -> None:
    assert call(["pul"]) == 2
    said = capsys.readouterr().err
    assert "error: No such command 'pul'. Did you mean 'pull'" in said
    assert call(["ps", "--nonsense"]) == 2
    said = capsys.readouterr().err
    assert "error: No such option" in said
    assert "hint: see `dockyard ps --help`" in said
    assert call(["tag", "one"]) == 2
    assert call(["run", "x", "hello", "--temperature", "hot"]) == 2
    assert "'--temperature'" in capsys.readouterr().err


def test_no_arguments_show_the_help(capsys: Capture) -> None:
    assert call([]) == 2
    assert "Usage: dockyard" in capsys.readouterr().err


def test_not_found_is_3_and_names_what_is_near(capsys: Capture) -> None:
    assert call(["inspect", "no-such-model"]) == 3
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "no-such-model" in said
    assert "hint: " in said
    assert call(["config", "prot"]) == 3


def test_unreachable_is_4(capsys: Capture) -> None:
    assert call(["ps"]) == 4
    assert "hint: start one with `dockyard serve`" in capsys.readouterr().err
    assert call(["ps", "--host", "http://127.0.0.1:9"]) == 4
    assert "can't reach http://127.0.0.1:9" in capsys.readouterr().err
    assert call(["status"]) == 4


def test_the_host_comes_from_the_environment_too(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKYARD_HOST", "http://127.0.0.1:9")
    assert call(["ps"]) == 4
    assert "can't reach http://127.0.0.1:9" in capsys.readouterr().err
    assert call(["config", "host"]) == 0
    assert capsys.readouterr().out == "127.0.0.1\n"


def test_settings_that_are_wrong_name_their_source(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKYARD_PORT", "many")
    assert call(["ls"]) == 2
    said = capsys.readouterr().err
    assert "'port' from environment" in said


def test_a_defect_is_told_without_a_traceback_unless_asked(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    # A home that is a file breaks the store in a way that no check foresees.
    monkeypatch.setenv("DOCKYARD_HOME", "/dev/null")
    assert call(["ls"]) == 1
    said = capsys.readouterr().err
    assert "error: " in said
    assert "Traceback" not in said
    assert call(["--debug", "ls"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m dockyard config --json | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout == "[\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.DockyardError, 1),
        (errors.LoadFailed, 1),
        (errors.InvalidReference, 2),
        (errors.SettingsError, 2),
        (errors.ModelNotFound, 3),
        (errors.SourceUnreachable, 4),
        (errors.ServerUnreachable, 4),
        (errors.Unauthorized, 5),
        (errors.Blocked, 5),
        (errors.Conflict, 5),
        (errors.InsufficientMemory, 6),
        (errors.StoreFull, 6),
        (errors.Cancelled, 130),
    ],
)
def test_exit_codes_are_those_of_the_table(kind: type[errors.DockyardError], code: int) -> None:
    assert exit_code(kind("x")) == code


def test_version(capsys: Capture) -> None:
    assert call(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dockyard 0.")
    assert call(["version", "--json"]) == 0
    assert '"python"' in capsys.readouterr().out


def test_config_says_where_values_come_from(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    monkeypatch.setenv("DOCKYARD_PORT", "4321")
    monkeypatch.setenv("DOCKYARD_API_KEYS", "sk-secret,sk-other:manage")
    with open(os.environ["DOCKYARD_CONFIG"], "w") as file:
        file.write("hubs: [hub.example:5000]\n")
    assert call(["config", "--json"]) == 0
    text = capsys.readouterr().out
    found = {row["name"]: row for row in json.loads(text)}
    assert (found["port"]["value"], found["port"]["origin"]) == (4321, "environment")
    assert found["hubs"]["origin"] == os.environ["DOCKYARD_CONFIG"]
    assert found["idle_seconds"]["origin"] == "default"
    assert "secret" not in text
    assert call(["config", "port"]) == 0
    assert capsys.readouterr().out == "4321\n"


def test_an_empty_variable_is_an_unset_one(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    names = ("offline", "port", "context", "log_level", "default_namespace")
    for name in names:
        monkeypatch.setenv(f"DOCKYARD_{name.upper()}", "")
    with open(os.environ["DOCKYARD_CONFIG"], "w") as file:
        file.write("default_namespace: ''\n")
    assert call(["config", "--json"]) == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert [found[name]["origin"] for name in names[:-1]] == ["default"] * 4
    assert found["offline"]["value"] is False
    assert found["default_namespace"]["value"] == ""
