"""The verbs as a user has them: flags from parameters, plans, refusals, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dockyard.artifact.store import Store
from dockyard.cli import call
from dockyard.ops import planning
from dockyard.ops.planning import Cost, admit, fastest


@pytest.fixture
def home(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["package", str(tiny_folder), "tiny"]) == 0
    capsys.readouterr()


@pytest.mark.usefixtures("home")
def test_a_plan_says_what_it_would_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["quantize", "tiny", "small", "--to", "gguf-q8_0", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["operation"] == "quantize"
    assert plan["cost"]["memory"] > 100 << 20
    assert plan["cost"]["seconds"] > 0
    assert plan["refusal"] is None
    assert call(["quantize", "tiny", "small", "--to", "gguf-q8_0", "--dry-run"]) == 0
    assert "minutes" in capsys.readouterr().out


@pytest.mark.usefixtures("home")
def test_quantize_and_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["quantize", "tiny", "small", "--to", "openvino-int8", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["attached"][0]["type"] == "application/vnd.dockyard.parity.v1+json"
    assert call(["quantize", "tiny", "smaller", "--to", "openvino-int8"]) == 0
    out = capsys.readouterr().out
    assert first["digest"] in out
    assert "here already" in out
    assert call(["history", "small", "--json"]) == 0
    assert [each["operation"] for each in json.loads(capsys.readouterr().out)] == ["quantize", "package"]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["quantize", "tiny"], 2, "to"),
        (["quantize", "tiny", "--to", "int3"], 2, "error: to: Invalid enum value 'int3'\nhint: it takes: fp8 | "),
        (["prune", "tiny", "--samples", "0"], 2, "error: samples: Expected `int` >= 1\n"),
        (["quantize", "tiny", "--to", "openvino-int4", "--group-size", "7"], 2, "group_size"),
        (["prune", "tiny", "--method", "depth"], 2, "layers"),
        (["merge", "tiny"], 2, "adapter"),
        (["quantize", "tiny", "--to", "openvino-int4-awq", "--calibration", "nowhere.txt"], 3, "nowhere.txt"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(words) == code
    assert told in capsys.readouterr().err


@pytest.mark.usefixtures("home")
def test_a_misspelt_name_is_told_even_where_no_registry_can_be_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKYARD_OFFLINE", "true")
    assert call(["convert", "tinny", "--to", "gguf"]) != 0
    assert "hint: did you mean tiny?; " in capsys.readouterr().err


def test_what_can_not_fit_is_refused(tmp_path: Path) -> None:
    from dockyard.errors import InsufficientMemory, StoreFull
    from dockyard.hardware import detect

    store = Store(tmp_path / "store")
    machine = msgspec.structs.replace(detect(), memory_available=1 << 30)
    with pytest.raises(InsufficientMemory, match=r"2\.1 GB of memory, of which 1\.1 GB are free"):
        admit(store, Cost(memory=2 << 30, disk=0, seconds=1), machine, "tune")
    with pytest.raises(StoreFull):
        admit(store, Cost(memory=1, disk=1 << 60, seconds=1), machine, "tune")
    assert planning.forward_seconds(10**9, 1000) > planning.forward_seconds(10**6, 1000)


def test_a_busy_machine_is_not_taken_for_a_slow_one() -> None:
    """All runs but one wait for their turn; on an idle machine many are made, and soon enough."""
    now = [0.0]

    def runs(*seconds: float) -> Iterator[None]:
        for each in seconds:
            now[0] += each
            yield

    waiting = runs(0.1, 0.06, 0.001, 0.08, 0.1, 0.1, 0.1)
    assert fastest(lambda: next(waiting), lambda: now[0]) == pytest.approx(0.001)
    idle = runs(*[0.002] * 100)
    assert fastest(lambda: next(idle), lambda: now[0]) == pytest.approx(0.002)
    assert len(list(idle)) < 80
