"""What changed between two artifacts: tensors, figures, size, speed, licence, and how they are related."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from proof_runs import run_of, share
from safetensors.numpy import save_file

from dockyard.artifact.manifest import Lineage, Parent
from dockyard.artifact.packing import pack_files
from dockyard.artifact.store import Entry, Store
from dockyard.artifact.writers import About
from dockyard.cli import call
from dockyard.ops.diff import diff
from dockyard.ops.report import attach_report


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("DOCKYARD_HOME", str(tmp_path / "home"))
    return Store(tmp_path / "home" / "store")


def _keep(
    store: Store, name: str, tensors: dict[str, np.ndarray], parents: tuple[Parent, ...] = (), licence: str = "mit"
) -> Entry:
    folder = store.root.parent.parent / name
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 4}')
    files = {each.name: each for each in folder.iterdir()}
    about = About(licenses=(licence,))
    return pack_files(store, files, reference=store.named(name), parents=parents, about=about, lineage=Lineage())


def _tensors(scale: float = 1.0) -> dict[str, np.ndarray]:
    values = np.arange(1, 17, dtype=np.float32).reshape(4, 4)
    return {
        "model.embed_tokens.weight": values.copy(),
        "model.layers.0.self_attn.q_proj.weight": values * scale,
        "model.layers.0.mlp.up_proj.weight": values.astype(np.float16),
    }


def test_weights_are_compared_tensor_by_tensor(store: Store) -> None:
    base = _keep(store, "base", _tensors())
    changed = {**_tensors(1.1), "extra": np.zeros(2, np.float32)}
    changed["model.layers.0.mlp.up_proj.weight"] = changed["model.layers.0.mlp.up_proj.weight"][:2]
    _keep(store, "child", changed, (Parent(digest=base.descriptor.digest),), "apache-2.0")
    found = diff(store, "base", "child")
    assert found.relation == "child"
    weights = found.weights
    assert (weights.compared, weights.same) == (2, 1)
    (most,) = weights.most
    assert most.name == "model.layers.0.self_attn.q_proj.weight"
    assert (round(most.relative, 6), round(most.cosine, 6)) == (0.1, 1.0)
    assert most.largest == pytest.approx(1.6)
    assert round(weights.parts["attention"], 6) == 0.1
    assert weights.parts["embedding"] == 0
    assert weights.only_second == ("extra",)
    assert weights.reshaped == ("model.layers.0.mlp.up_proj.weight",)
    assert (found.first.licences, found.second.licences, found.second.inherited) == (
        ("mit",),
        ("apache-2.0",),
        ("mit",),
    )
    assert [each.path for each in found.files] == ["model.safetensors"]
    assert diff(store, "child", "base").relation == "parent"
    assert diff(store, "base", "base").relation == "same"


def test_numbers_of_other_types_are_compared_by_value(store: Store) -> None:
    values = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    _keep(store, "full", {"w": values})
    _keep(store, "half", {"w": values.astype(np.float16)})
    (most,) = diff(store, "full", "half").weights.most
    assert (most.first_type, most.second_type) == ("F32", "F16")
    assert 0 < most.relative < 1e-3


def test_gguf_is_dequantised(store: Store) -> None:
    gguf = pytest.importorskip("gguf", reason="the library that reads GGUF is not installed")
    rng = np.random.default_rng(1)
    values = rng.standard_normal((32, 64), dtype=np.float32)
    for name, kind in (("full", gguf.GGMLQuantizationType.F32), ("small", gguf.GGMLQuantizationType.Q8_0)):
        path = store.root.parent.parent / f"{name}.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_block_count(1)
        data = values if name == "full" else gguf.quants.quantize(values, kind)
        writer.add_tensor("blk.0.attn_q.weight", data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        pack_files(store, {f"{name}.gguf": path}, reference=store.named(name))
    (most,) = diff(store, "full", "small").weights.most
    assert (most.first_type, most.second_type, most.shape) == ("F32", "Q8_0", (64, 32))
    assert 0.001 < most.relative < 0.01
    _keep(store, "tensors", _tensors())
    assert "name and order their tensors differently" in diff(store, "full", "tensors").weights.why
    assert diff(store, "full", "small", weights=False).weights.why == "not asked for"


def test_figures_are_compared_item_by_item_and_speed_has_no_verdict(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    base = _keep(store, "base", _tensors())
    child = _keep(store, "child", _tensors(1.1), (Parent(digest=base.descriptor.digest),))
    for entry, right in ((base, 90), (child, 60)):
        attach_report(store, entry.descriptor.digest, run_of(entry.descriptor.digest, [*share(right, 100)]))
    attach_report(store, "child", run_of(child.descriptor.digest, [True], suite="only"))
    found = diff(store, "base", "child")
    ((metric,),) = [each.metrics for each in found.figures]
    assert metric.difference is not None
    assert (metric.difference.verdict, round(metric.difference.difference, 6)) == ("worse", -0.3)
    assert metric.difference.interval.high < 0
    assert found.unmatched == ("only: only of the second",)
    assert [(each.what, each.relative) for each in found.speed] == [("ttft_p95", 0.0)]
    assert call(["diff", "base", "child"]) == 0
    text = capsys.readouterr().out
    assert "the second was made from the first" in text
    assert "1 tensors are the same" in text or "2 of 3 tensors are the same" in text
    assert "qa/exact_match" in text
    assert "worse" in text
    assert call(["diff", "base", "child", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["relation"] == "child"
    assert call(["diff", "base", "lost"]) == 3
