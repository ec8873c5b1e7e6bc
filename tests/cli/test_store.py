"""The verbs of the store, from files to a registry and back."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockyard.artifact.registry.memory import MemoryRegistry
from dockyard.cli import call

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def stocked(starter_gguf: Path, capsys: Capture) -> Path:
    """The real model in this test's own store, packaged by the command itself."""
    assert call(["package", "--link", str(starter_gguf), "smollm2"]) == 0
    capsys.readouterr()
    return starter_gguf


@pytest.fixture
def registry() -> Iterator[str]:
    with MemoryRegistry() as server:
        yield server.host


def said(capsys: Capture) -> str:
    return capsys.readouterr().out


def listed(capsys: Capture) -> list[dict]:
    assert call(["ls", "--json"]) == 0
    return json.loads(said(capsys))


def test_the_life_of_a_model_on_disk(stocked: Path, capsys: Capture, tmp_path: Path) -> None:
    (model,) = listed(capsys)
    assert model["tags"] == ["docker.io/ai/smollm2:latest"]
    known = {"format": "gguf", "architecture": "llama", "parameters": "135M", "quantization": "Q4_1"}
    assert model["config"] == known
    assert model["size"] > 98_000_000
    assert call(["tag", "smollm2", "team/other:v1"]) == 0
    assert said(capsys) == "docker.io/team/other:v1\n"
    assert call(["ls"]) == 0
    assert "team/other:v1" in said(capsys)
    assert call(["ls", "-q"]) == 0
    assert said(capsys).strip() == model["id"]
    assert call(["rm", "smollm2"]) == 0
    assert said(capsys).startswith("untagged docker.io/ai/smollm2:latest")
    assert call(["pin", "team/other:v1"]) == 0
    assert call(["rm", "team/other:v1"]) == 5
    assert call(["unpin", "team/other:v1"]) == 0
    assert call(["rm", model["id"][7:19]]) == 0
    assert "deleted sha256:" in said(capsys)
    assert listed(capsys) == []


def test_inspect_shows_the_parts_of_a_transformer(stocked: Path, capsys: Capture) -> None:
    assert call(["inspect", "smollm2"]) == 0
    text = said(capsys)
    for part in (
        "token embedding",
        "30 x transformer block",
        "self-attention (grouped-query)",
        "feed-forward",
        "KV cache",
    ):
        assert part in text
    assert call(["inspect", "smollm2", "--json"]) == 0
    found = json.loads(said(capsys))
    assert found["facts"]["layers"] == 30
    assert found["anatomy"]["kv_bytes_per_token"] == 23040
    assert found["layers"][0]["role"] == "weight"
    assert found["packaging"] == "modelpack"


def test_packaging_again_gives_the_same_digest_and_a_change_has_a_parent(stocked: Path, capsys: Capture) -> None:
    arguments = ["package", "--json", "--link", str(stocked), "again"]
    assert call(arguments) == 0
    found = json.loads(said(capsys))
    assert found["reused"]
    assert found["digest"] == listed(capsys)[0]["id"]
    assert call(["package", "--from", "smollm2", "--context", "1024", "--format", "docker", "small"]) == 0
    capsys.readouterr()
    assert call(["history", "small", "--json"]) == 0
    small, base = json.loads(said(capsys))
    assert (small["operation"], small["depth"]) == ("package", 0)
    assert (base["digest"], base["role"]) == (found["digest"], "base")


def test_wrong_packaging_says_what_is_wrong(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"\x80\x02}q\x00.")
    for arguments, word in (
        ([str(tmp_path / "none.gguf"), "x"], "none.gguf"),
        ([str(tmp_path / "weights.bin"), "x"], "weights.bin"),
        (["x"], "nothing to package"),
        ([str(tmp_path), "Bad Name"], "Bad Name"),
        (["--format", "zip", str(tmp_path), "x"], "format"),
    ):
        assert call(["package", *arguments]) != 0
        problem = capsys.readouterr().err
        assert word in problem
        assert "Traceback" not in problem


def test_an_archive_carries_a_model_to_another_home(
    stocked: Path, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(["save", "smollm2", "-o", str(tmp_path / "model.tar")]) == 0
    before = listed(capsys)
    monkeypatch.setenv("DOCKYARD_HOME", str(tmp_path / "other"))
    assert call(["load", str(tmp_path / "model.tar"), "--json"]) == 0
    assert json.loads(said(capsys))[0]["digest"] == before[0]["id"]
    assert [model["id"] for model in listed(capsys)] == [before[0]["id"]]


def test_push_and_pull_through_a_registry(
    stocked: Path, registry: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{registry}/team/smollm2:v1"
    assert call(["push", "smollm2", "--to", name]) == 0
    assert name in said(capsys)
    digest = listed(capsys)[0]["id"]
    monkeypatch.setenv("DOCKYARD_HOME", str(tmp_path / "other"))
    assert call(["pull", name]) == 0
    printed = capsys.readouterr()
    assert digest in printed.out
    assert "pull" in printed.err
    assert call(["pull", name, "--json"]) == 0
    assert json.loads(said(capsys)) == [{"reference": name, "digest": digest, "size": 98362799}]
    assert call(["pull", f"{registry}/team/none"]) == 3


def test_disk_usage_clean_up_and_check(stocked: Path, capsys: Capture) -> None:
    assert call(["df", "--json"]) == 0
    used = json.loads(said(capsys))
    assert used["artifacts"] == 1
    assert call(["df"]) == 0
    assert "98.4 MB" in said(capsys)
    assert call(["gc", "--grace", "0"]) == 0
    assert said(capsys).startswith("freed ")
    assert call(["fsck"]) == 0
    assert said(capsys) == "the store is sound\n"


def test_search_offline_names_whom_it_could_not_ask(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKYARD_OFFLINE", "true")
    assert call(["search", "smol", "--json"]) == 4
    assert json.loads(said(capsys))["unreachable"]


def test_plugins_are_listed(capsys: Capture) -> None:
    assert call(["plugins", "--json"]) == 0
    found = {(row["kind"], row["name"]) for row in json.loads(said(capsys))}
    assert {("engines", "llamacpp"), ("engines", "echo"), ("guards", "pattern")} <= found


def test_keys_are_made_listed_and_revoked(capsys: Capture) -> None:
    assert call(["key", "create", "ci", "--manage", "--days", "1", "--model", "smol*", "--json"]) == 0
    made = json.loads(said(capsys))
    assert made["secret"].startswith("dky_")
    assert made["scopes"] == ["infer", "manage"]
    assert call(["key", "create", "ci"]) == 5
    assert call(["key", "ls"]) == 0
    table = said(capsys)
    assert "smol*" in table
    assert made["secret"] not in table
    assert call(["key", "rm", "ci"]) == 0
    assert call(["key", "rm", "ci"]) == 3


def test_model_names_complete(dockyard: Callable[..., subprocess.CompletedProcess[str]], stocked_home: Path) -> None:
    environ = {"_DOCKYARD_COMPLETE": "complete_bash", "COMP_WORDS": "dockyard run smo", "COMP_CWORD": "2"}
    assert dockyard(home=stocked_home, environ=environ).stdout.split() == ["smollm2"]


def test_json_has_the_fields_that_the_documentation_promises(stocked: Path, capsys: Capture) -> None:
    page = Path(__file__).parent.parent.parent / "docs" / "concepts" / "command-line.md"
    rows = dict(re.findall(r"^\| `([a-z]+)`[^|]*\| `\[?\{(.+?)\}\]?`", page.read_text(), re.MULTILINE))
    lines = ("ls", "inspect smollm2", "history smollm2", "df", "gc", "config", "plugins", "version")
    for verb, *arguments in map(str.split, lines):
        assert call([verb, *arguments, "--json"]) == 0
        found = json.loads(said(capsys))
        promised = set(re.sub(r": (\[?\{[^}]*\}\]?)", "", rows[verb]).split(", "))
        assert set(found[0] if isinstance(found, list) else found) == promised, verb
