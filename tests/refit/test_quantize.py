"""Fewer bits a weight, in both engines' formats; what is attached says what it cost."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from making import make

from dockyard.artifact.lineage import attached
from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Store
from dockyard.errors import EngineUnavailable, InvalidRequest, UnsupportedFormat
from dockyard.ops import _nncf, parity
from dockyard.ops._ir import evaluate
from dockyard.ops._libraries import library
from dockyard.ops._qat import _decompression


def _kl(store: Store, name: str) -> float:
    (referrer,) = store.referrers(store.resolve(name).digest, parity.ARTIFACT_TYPE)
    return float(json.loads(attached(store, referrer))["kl"])


def _numbers(store: Store, name: str) -> bytes:
    return (Path(model_files(store, name).weights[0]).parent / "openvino_model.bin").read_bytes()


@pytest.mark.parametrize(
    ("to", "told", "kl"),
    [
        ("gguf-q8_0", "Q8_0", 0.01),
        ("gguf-q6_k", "Q6_K", 0.05),
        ("gguf-q4_k_m", "Q4_K_M", 1.0),
        ("gguf-q4_0", "Q4_0", 1.0),
        ("gguf-q4_1", "Q4_1", 1.0),
        ("openvino-int8", "INT8", 0.05),
        ("openvino-int4", "INT4", 1.0),
    ],
)
def test_precisions(refit_store: Store, to: str, told: str, kl: float) -> None:
    make(refit_store, "quantize", "tiny", name=to, to=to)
    facts = model_files(refit_store, to).facts
    assert told in (facts.quantization or "")
    assert _kl(refit_store, to) < kl
    assert facts.weight_bytes < 4 * (facts.parameters or 0) / 1.8


def test_scale_estimation_with_given_text(refit_store: Store, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The harbour was quiet that morning, and the first ship came in at seven. " * 20)
    awq = "openvino-int4-awq"
    make(refit_store, "quantize", "tiny", name="awq", to=awq, calibration=text, samples=4, tokens=32)
    make(refit_store, "quantize", "tiny", name="data-free", to="openvino-int4")
    assert "INT4" in (model_files(refit_store, "awq").facts.quantization or "")
    assert _kl(refit_store, "awq") < 1.0
    assert _numbers(refit_store, "awq") != _numbers(refit_store, "data-free")


def test_the_four_bit_numbers_that_were_trained_are_served(
    refit_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a compiler, since building NNCF's operations takes longer than training with torch's; nor may torch try
    to compile those then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torch._inductor.compile_fx")  # else whether it can be tried hangs on earlier tests
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    text = tmp_path / "text.txt"
    text.write_text("The harbour was quiet that morning, and the first ship came in at seven. " * 20)
    told = {"to": "openvino-int4-qat", "calibration": text, "samples": 4, "tokens": 32, "steps": 2, "rank": 4}
    make(refit_store, "quantize", "tiny", name="trained", **told)
    assert "INT4" in (model_files(refit_store, "trained").facts.quantization or "")
    assert _kl(refit_store, "trained") < 0.2  # random numbers in their place make 1


@pytest.mark.parametrize("zeros", [True, False])
def test_packed_numbers_are_the_graphs_own(zeros: bool) -> None:
    """They must not be a view of memory that someone else has by the time the graph is read."""
    import openvino

    codes = (np.arange(192 * 2 * 32) * 7 % 16).reshape(192, 2, 32)
    signed = np.where(codes > 7, codes - 16, codes)
    zero = (np.arange(192 * 2) % 11).astype(np.uint8).reshape(192, 2, 1)
    scale = np.full((192, 2, 1), 0.5, np.float16)
    if zeros:
        found = evaluate(_decompression(openvino, np, codes.astype(np.uint8), scale, zero))
        wanted = (codes - zero.astype(int)) * 0.5
    else:
        found = evaluate(_decompression(openvino, np, signed.astype(np.int8), scale, None))
        wanted = signed * 0.5
    np.testing.assert_array_equal(found, wanted.reshape(192, 64))


def test_calibration_text_goes_through_the_graph_in_pieces() -> None:
    """NNCF keeps one mean of each; what went before is in the graph's state, and is gone when the next run begins."""
    nncf = library("nncf")
    names = {"input_ids", "attention_mask", "position_ids"}
    pieces = [piece for run in ([*range(40)], [*range(7)]) for piece in _nncf._pieces(nncf, run, names)]
    assert [piece["input_ids"].shape[1] for piece in pieces] == [16, 16, 8, 7]
    assert [piece["attention_mask"].shape[1] for piece in pieces] == [16, 32, 40, 7]
    assert [piece["position_ids"][0, 0] for piece in pieces] == [0, 16, 32, 0]
    assert [piece[nncf.definitions.NNCF_DATASET_RESET_STATE_KEY] for piece in pieces] == [True, False, False, True]
    assert all({*piece} == {*names, nncf.definitions.NNCF_DATASET_RESET_STATE_KEY} for piece in pieces)


def test_a_broken_line_of_calibration_text(refit_store: Store, tmp_path: Path) -> None:
    lines = tmp_path / "text.jsonl"
    lines.write_text('{"text": "fine"}\n{"text": \n')
    with pytest.raises(InvalidRequest, match=r"line 2: no text"):
        make(refit_store, "quantize", "tiny", to="openvino-int4-awq", calibration=lines)
    short = tmp_path / "short.txt"
    short.write_text("too little")
    with pytest.raises(InvalidRequest, match="one sample takes 128"):
        make(refit_store, "quantize", "tiny", to="openvino-int4-awq", calibration=short)


def test_text_that_nobody_reads(refit_store: Store, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("hello")
    with pytest.raises(InvalidRequest, match="looks at no text"):
        make(refit_store, "quantize", "tiny", to="gguf-q8_0", calibration=text)


@pytest.mark.parametrize(
    ("to", "params"),
    [
        ("gguf-q8_0", {"group_size": 64}),
        ("openvino-int8", {"ratio": 0.5}),
        ("openvino-int4", {"samples": 4}),
        ("openvino-int4-awq", {"steps": 4}),
        ("fp8", {"kl": 0.1}),
    ],
)
def test_parameters_that_would_do_nothing(refit_store: Store, to: str, params: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match=f"{next(iter(params))} would do nothing: this is {to}"):
        make(refit_store, "quantize", "tiny", to=to, **params)


def test_what_is_quantised_already_in_ir(refit_store: Store) -> None:
    make(refit_store, "quantize", "tiny", name="int8", to="openvino-int8")
    with pytest.raises(UnsupportedFormat, match="is openvino") as caught:
        make(refit_store, "quantize", "int8", to="gguf-q8_0")
    assert caught.value.hint == "use docker.io/ai/tiny:latest, which it was made from"


def test_llm_compressor_wants_its_environment(refit_store: Store) -> None:
    with pytest.raises(EngineUnavailable, match="llm-compressor") as caught:
        make(refit_store, "quantize", "tiny", to="fp8")
    assert "pip install llmcompressor" in (caught.value.hint or "")
    with pytest.raises(EngineUnavailable, match="has no llmcompressor"):
        make(refit_store, "quantize", "tiny", to="w4a16", python=sys.executable)
