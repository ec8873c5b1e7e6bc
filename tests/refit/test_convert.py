"""Conversions answer as their source did, or are refused; weights come back as they went."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import make

from dockyard.artifact.lineage import attached, history
from dockyard.artifact.manifest import read_artifact
from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Store
from dockyard.errors import InvalidRequest, ParityMismatch
from dockyard.ops import _checkpoint, parity
from dockyard.ops._gguf_read import read_gguf
from dockyard.ops._speakers import Llama, Transformers, speaker
from dockyard.ops.quantize import BROKEN


@pytest.fixture(scope="module")
def converted(refit_store: Store) -> Store:
    """``tiny`` as GGUF, from that as IR, and both back as safetensors."""
    make(refit_store, "convert", "tiny", name="tiny-gguf", to="gguf")
    make(refit_store, "convert", "tiny-gguf", name="tiny-ir", to="openvino")
    make(refit_store, "convert", "tiny-gguf", name="tiny-back", to="safetensors")
    make(refit_store, "convert", "tiny-ir", name="tiny-round", to="safetensors")
    return refit_store


def _weights(store: Store, name: str) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(model_files(store, name).weights[0])


@pytest.mark.parametrize("name", ["tiny-back", "tiny-round"])
def test_weights_come_back_as_they_went(converted: Store, name: str) -> None:
    before, after = _weights(converted, "tiny"), _weights(converted, name)
    assert set(before) == set(after)
    for key, values in before.items():
        np.testing.assert_allclose(after[key].astype(np.float32), values, rtol=1e-3, atol=1e-4, err_msg=key)


@pytest.mark.parametrize("name", ["tiny-gguf", "tiny-ir", "tiny-back", "tiny-round"])
def test_the_gates_figures_are_attached(converted: Store, name: str) -> None:
    (referrer,) = converted.referrers(converted.resolve(name).digest, parity.ARTIFACT_TYPE)
    found = json.loads(attached(converted, referrer))
    assert found["refusal"] == ""
    assert found["kl"] < 0.01
    assert all(each["tokens"] for each in found["prompts"])
    assert found["reference"] != found["candidate"] or name == "tiny-round"


@pytest.mark.parametrize("name", ["tiny-gguf", "tiny-ir", "tiny-back"])
def test_tokenizer_template_and_licence_come_along(converted: Store, name: str) -> None:
    files = model_files(converted, name)
    assert "<|im_start|>" in (files.chat_template or files.facts.chat_template or "")
    artifact = read_artifact(converted, converted.resolve(name).digest)
    assert [layer.path for layer in artifact.of("licence")] == ["LICENSE"]


def test_onnx_answers_the_same(refit_store: Store) -> None:
    make(refit_store, "convert", "tiny", name="tiny-onnx", to="onnx")
    (referrer,) = refit_store.referrers(refit_store.resolve("tiny-onnx").digest, parity.ARTIFACT_TYPE)
    found = json.loads(attached(refit_store, referrer))
    assert (found["candidate"], found["refusal"]) == ("onnxruntime", "")
    assert found["kl"] < 0.01


def test_full_floats_are_refused_where_there_are_none(refit_store: Store) -> None:
    with pytest.raises(InvalidRequest, match="half floats"):
        make(refit_store, "convert", "tiny", to="openvino", precision="F32")


def test_history_shows_the_graph(converted: Store) -> None:
    found = history(converted, "tiny-round")
    assert [each.operation for each in found] == ["convert", "convert", "convert", "package"]
    assert [each.params.get("to") for each in found[:3]] == ["safetensors", "openvino", "gguf"]


def test_what_was_converted_is_not_converted_again(converted: Store) -> None:
    assert make(converted, "convert", "tiny", name="again", to="gguf").reused


def test_a_model_of_the_format_already(refit_store: Store) -> None:
    with pytest.raises(InvalidRequest, match="is safetensors already"):
        make(refit_store, "convert", "tiny", to="safetensors")


def test_a_wrong_tokenizer_is_refused_where_it_parts(converted: Store, tiny_folder: Path) -> None:
    """What transformers 5 made of GGUF files: digits joined with the space before them, or all spaces one token."""
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    said = parity.listen(speaker(model_files(converted, "tiny-gguf")), positions=2)
    wrong = AutoTokenizer.from_pretrained(tiny_folder)
    wrong.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    found = parity.compare(said, "llama.cpp", Transformers(model=model, tokenizer=wrong))
    with pytest.raises(ParityMismatch, match="the tokens of 'The harbour"):
        parity.require(found, "it")


def test_other_weights_are_refused_where_they_part(converted: Store, tiny_folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    said = parity.listen(speaker(model_files(converted, "tiny-gguf")), positions=4)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    query = model.model.layers[0].self_attn.q_proj
    query.weight.data = query.weight.data.flip(0)  # rows of another order, as llama.cpp keeps them
    found = parity.compare(
        said, "llama.cpp", Transformers(model=model, tokenizer=AutoTokenizer.from_pretrained(tiny_folder))
    )
    assert found.kl > 0.01
    with pytest.raises(ParityMismatch, match="nats"):
        parity.require(found, "it")


class Terse(Transformers):
    """Tells the sixteen likeliest words alone."""

    def logprobs(self, ids: Sequence[int], last: int) -> Any:
        rows = super().logprobs(ids, last)
        return np.where(rows >= np.sort(rows)[:, -16:-15], rows, np.nan)


def test_words_that_a_runtime_does_not_tell_count_neither_way(tiny_folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = AutoTokenizer.from_pretrained(tiny_folder)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_folder)
    whole, terse = Transformers(model=model, tokenizer=words), Terse(model=model, tokenizer=words)
    for first, second in ((whole, terse), (terse, whole)):
        found = parity.compare(parity.listen(first, positions=8), "it", second)
        assert found.kl < 1e-5
        assert found.agreement == 1
        assert not found.refusal
    said = parity.listen(whole, positions=4)
    model.model.layers[0].self_attn.q_proj.weight.data.neg_()
    assert 0.01 < parity.compare(said, "it", terse).kl < parity.compare(said, "it", whole).kl


def test_a_model_that_says_nothing_is_broken_however_few_nats_that_are(converted: Store, tiny_folder: Path) -> None:
    """What a tiny model says is so near to chance that chance itself is within the nats that four bits may cost."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    said = parity.listen(speaker(model_files(converted, "tiny-gguf")), positions=8)
    words = AutoTokenizer.from_pretrained(tiny_folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    loose = parity.Limits(kl=10.0, prefix=0, tie=0.5, **BROKEN)
    assert not parity.compare(said, "llama.cpp", Transformers(model=model, tokenizer=words), loose).refusal
    torch.nn.init.zeros_(model.model.norm.weight)
    silent = parity.compare(said, "llama.cpp", Transformers(model=model, tokenizer=words), loose)
    assert silent.kl == pytest.approx(silent.nothing, rel=0.01)
    with pytest.raises(ParityMismatch, match="knows nothing"):
        parity.require(silent, "it")
    torch.nn.init.ones_(model.model.norm.weight)
    for layer in model.model.layers:
        layer.mlp.down_proj.weight.data.neg_()
    other = parity.compare(said, "llama.cpp", Transformers(model=model, tokenizer=words), loose)
    with pytest.raises(ParityMismatch, match=r"knows nothing|the same word comes first at \d+% of the positions"):
        parity.require(other, "it")


def test_nothing_is_stored_of_what_is_refused(converted: Store) -> None:
    before = len(converted.entries(everything=True))
    with pytest.raises(ParityMismatch):
        make(converted, "convert", "tiny-gguf", name="never", to="openvino", kl=1e-12)
    assert len(converted.entries(everything=True)) == before
    assert not [each for each in (converted.root.parent / "work").iterdir() if each.is_dir()]


def test_llama_cpp_says_the_same_tokens_for_numbers(converted: Store, tiny_folder: Path) -> None:
    from transformers import AutoTokenizer

    said = Llama(Path(model_files(converted, "tiny-gguf").weights[0]))
    own = AutoTokenizer.from_pretrained(tiny_folder)
    try:
        for text in ("a  12 345", "x2024-01", "<|im_start|>user\n7<|im_end|>", "  \n\t 3"):
            assert said.tokens(text) == own(text, add_special_tokens=False).input_ids
    finally:
        said.close()


def test_a_file_that_the_library_reads_itself_gives_plain_weights(starter_gguf: Path, tmp_path: Path) -> None:
    """What is of no family that is read here, or in shards: it can be saved, and trained."""
    model = _checkpoint._from_gguf(read_gguf(starter_gguf), "float32", shards=2)
    assert {type(each).__name__ for each in model.modules() if "Linear" in type(each).__name__} == {"Linear"}
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size > 500_000_000
