"""Zeros where they were asked for, and parts that are really gone: both engines' files are smaller then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import make

from dockyard.artifact.lineage import attached
from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Store
from dockyard.errors import InvalidRequest
from dockyard.ops.prune import ARTIFACT_TYPE

SMALL = {"samples": 2, "tokens": 32}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("The harbour was quiet that morning, and the first ship came in at seven. " * 12)
    return path


def _report(store: Store, name: str) -> dict[str, Any]:
    (referrer,) = store.referrers(store.resolve(name).digest, ARTIFACT_TYPE)
    return dict(json.loads(attached(store, referrer)))


def _matrices(store: Store, name: str) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    found = load_file(model_files(store, name).weights[0])
    return {key: values for key, values in found.items() if ".layers." in key and values.ndim == 2}


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_half_of_the_weights(refit_store: Store, text: Path, method: str) -> None:
    make(refit_store, "prune", "tiny", name=method, calibration=text, method=method, **SMALL)
    for values in _matrices(refit_store, method).values():
        assert (values == 0).mean() == pytest.approx(0.5, abs=0.01)
    report = _report(refit_store, method)
    assert report["zeros"] == pytest.approx(0.5, abs=0.01)
    assert report["parameters_before"] == report["parameters_after"]
    assert "no engine on a CPU" in report["faster"]


def test_two_of_four(refit_store: Store, text: Path) -> None:
    make(refit_store, "prune", "tiny", name="two-four", calibration=text, method="wanda", pattern="2:4", **SMALL)
    for values in _matrices(refit_store, "two-four").values():
        assert ((values.reshape(-1, 4) == 0).sum(1) == 2).all()


@pytest.mark.parametrize(
    ("name", "params", "facts"),
    [
        ("depth", {"method": "depth", "layers": 1}, {"layers": 3}),
        ("width", {"method": "width", "width": 128}, {"feed_forward": 128}),
        ("heads", {"method": "heads", "groups": 1}, {"heads": 2, "kv_heads": 1, "head_size": 16}),
    ],
)
def test_parts_are_gone_in_every_format(
    refit_store: Store, text: Path, name: str, params: dict[str, Any], facts: dict[str, int]
) -> None:
    make(refit_store, "prune", "tiny", name=name, calibration=text, **params, **SMALL)
    report = _report(refit_store, name)
    assert report["parameters_after"] < report["parameters_before"]
    assert "every engine" in report["faster"]
    for to in ("gguf", "openvino"):
        make(refit_store, "convert", name, name=f"{name}-{to}", to=to)  # which the parity gate passed
    for each in (name, f"{name}-gguf", f"{name}-openvino"):
        found = model_files(refit_store, each).facts
        assert {key: getattr(found, key) for key in facts} == facts


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"method": "depth"}, "needs `layers`"),
        ({"method": "depth", "layers": 4}, "4 is too many"),
        ({"method": "wanda", "layers": 1}, "does not take `layers`"),
        ({"method": "width", "width": 100}, "multiple of 32"),
        ({"method": "wanda", "sparsity": 1.0}, "sparsity"),
        ({"method": "depth", "layers": 1, "sparsity": 0.3}, "sparsity would do nothing"),
        ({"method": "wanda", "pattern": "2:4", "sparsity": 0.3}, "sparsity would do nothing"),
    ],
)
def test_what_makes_no_sense(refit_store: Store, params: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        make(refit_store, "prune", "tiny", **params)
