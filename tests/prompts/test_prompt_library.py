"""Prompts with versions: kept, listed, compared, rolled back, sent and fetched, by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dockyard.artifact.registry.memory import MemoryRegistry
from dockyard.cli import call

FIRST = "description: First\ntask: Say hello.\n"
SECOND = (
    "description: Second\ntask: Say hello twice.\n"
    "tests:\n- {input: one two, scorers: [{name: exact-match}], references: [one two]}\n"
)


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert call(["prompt", *words]) == code
    return capsys.readouterr().out


@pytest.fixture
def two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    for number, text in enumerate((FIRST, SECOND), 1):
        (tmp_path / "p.yaml").write_text(text)
        assert told(capsys, "create", "hello", str(tmp_path / "p.yaml")).startswith(f"hello:v{number} sha256:")
    return tmp_path


def test_versions_are_kept_compared_and_rolled_back(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "hello   v2        Second" in told(capsys, "ls")
    assert "+task: Say hello twice." in told(capsys, "diff", "hello")
    assert told(capsys, "diff", "hello:v1", "hello:v1").strip() == "no difference"
    assert told(capsys, "rollback", "hello") == "hello:latest was v2, and is v1\n"
    assert told(capsys, "show", "hello") == FIRST
    assert told(capsys, "tag", "hello:v2", "stable") == "hello:stable is v2\n"
    (two / "p.yaml").write_text(SECOND)
    assert told(capsys, "create", "hello", str(two / "p.yaml")).startswith("hello:v2 ")
    rows = json.loads(told(capsys, "ls", "hello", "--json"))
    assert [(row["version"], row["tags"], row["current"]) for row in rows] == [
        ("v1", ["v1"], False),
        ("v2", ["latest", "stable", "v2"], True),
    ]
    assert call(["history", "prompts/hello:v2"]) == 0
    assert "before" in capsys.readouterr().out
    told(capsys, "rollback", "hello", "--to", "v1")
    assert call(["prompt", "rollback", "hello"]) == 5
    assert "is the first version" in capsys.readouterr().err


def test_what_is_not_there_is_told(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["prompt", "show", "helo"]) == 3
    assert "did you mean 'hello'" in capsys.readouterr().err
    assert call(["prompt", "show", "hello:v9"]) == 3
    assert call(["prompt", "rollback", "hello", "--to", "v9"]) == 3
    assert "versions: v1, v2" in capsys.readouterr().err
    assert call(["prompt", "tag", "hello:v1", "v7"]) == 5
    assert call(["prompt", "create", "hello:v3", str(two / "p.yaml")]) == 2
    assert call(["prompt", "create", "hello", str(two / "none.yaml")]) == 3
    (two / "bad.yaml").write_bytes(b"\xff\xfe")
    assert call(["prompt", "create", "hello", str(two / "bad.yaml")]) == 2


def test_versions_can_be_removed(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "rm", "hello:v2") == "removed hello:latest\nremoved hello:v2\n"
    assert told(capsys, "show", "hello") == FIRST
    told(capsys, "rm", "hello")
    assert json.loads(told(capsys, "ls", "--json")) == []


def test_a_prompt_is_filled_in_asked_with_and_tested(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "render", "hello", "you") == "[system]\nSay hello twice.\n\n[user]\nyou\n\n"
    assert told(capsys, "run", "hello", "to you", "-m", "echo") == "to you\n"
    assert told(capsys, "test", "hello", "-m", "echo") == "passed  test 1\n1 of 1 passed\n"
    (two / "t.yaml").write_text(SECOND.replace("references: [one two]", "references: [three]"))
    shown = json.loads(told(capsys, "test", str(two / "t.yaml"), "-m", "echo", "--json", code=1))
    assert (shown["passed"], shown["tests"][0]["answer"]) == (0, "one two")
    assert call(["prompt", "run", "hello", "x"]) == 2
    assert "no model is named" in capsys.readouterr().err


def test_a_prompt_travels(two: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with MemoryRegistry() as registry:
        there = f"{registry.host}/team/hello:v2"
        told(capsys, "push", "hello", there)
        monkeypatch.setenv("DOCKYARD_HOME", str(two / "other"))
        assert told(capsys, "pull", there, "greeting").startswith("greeting:v1 sha256:")
        assert told(capsys, "show", "greeting") == SECOND
