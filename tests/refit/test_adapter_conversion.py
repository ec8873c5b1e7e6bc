"""One adapter says the same in transformers, llama.cpp, OpenVINO, and merged; it is never silently left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from making import make

from dockyard.artifact.lineage import attached, history
from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Store
from dockyard.engines import create
from dockyard.engines._openvino_adapters import read as read_adapter
from dockyard.engines._openvino_pipelines import modules_of
from dockyard.errors import InvalidRequest, UnsupportedFormat
from dockyard.hardware import detect
from dockyard.ops import parity
from dockyard.ops._speakers import Llama, Speaker, Transformers, speaker
from dockyard.ops.merge import attach
from dockyard.ops.pack import Sources, package
from dockyard.settings import Settings
from dockyard.types import Adapter, Chunk, LoadOptions, ModelFiles, Request, Sampling


@pytest.fixture(scope="module")
def merged(refit_store: Store) -> Store:
    make(refit_store, "merge", "tiny", name="merged", roles={"adapter": "pirate"}, dtype="float32")
    make(refit_store, "convert", "merged", name="merged-gguf", to="gguf", precision="F32")
    make(refit_store, "convert", "merged", name="merged-ir", to="openvino")
    make(refit_store, "convert", "tiny", name="plain-gguf", to="gguf", precision="F32")
    make(refit_store, "convert", "tiny", name="plain-ir", to="openvino")
    make(refit_store, "convert", "pirate", name="pirate-gguf", roles={"of": "tiny"}, to="gguf")
    return refit_store


@pytest.fixture(scope="module")
def adapted(merged: Store, tiny_folder: Path) -> list[parity.Said]:
    """What PEFT says with the adapter on."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = attach(AutoModelForCausalLM.from_pretrained(tiny_folder), model_files(merged, "pirate"))
    return parity.listen(Transformers(model=model, tokenizer=AutoTokenizer.from_pretrained(tiny_folder)), positions=8)


def _refusal(said: list[parity.Said], other: Speaker) -> str:
    try:
        return parity.compare(said, "PEFT", other).refusal
    finally:
        other.close()


def test_the_adapter_changes_what_is_said(merged: Store, adapted: list[parity.Said]) -> None:
    assert "nats" in _refusal(adapted, speaker(model_files(merged, "plain-gguf")))


@pytest.mark.parametrize("name", ["merged", "merged-gguf", "merged-ir"])
def test_merged_says_what_peft_says(merged: Store, adapted: list[parity.Said], name: str) -> None:
    assert _refusal(adapted, speaker(model_files(merged, name))) == ""


def test_llama_cpp_says_what_peft_says(merged: Store, adapted: list[parity.Said]) -> None:
    base, adapter = (model_files(merged, name).weights[0] for name in ("plain-gguf", "pirate-gguf"))
    assert _refusal(adapted, Llama(Path(base), adapter=Path(adapter))) == ""


def test_openvino_says_what_peft_says_with_alpha_over_rank(merged: Store, adapted: list[parity.Said]) -> None:
    """GenAI takes the factor as it is given: alpha instead of alpha / rank would be three times too much."""
    import openvino
    import openvino_genai

    folder = Path(model_files(merged, "plain-ir").weights[0]).parent
    pirate = model_files(merged, "pirate")
    found = read_adapter(Adapter(name="pirate", path=pirate.directory, digest=""), modules_of(folder))
    assert found.factor == pytest.approx(12 / 4)
    exact = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    adapters = openvino_genai.AdapterConfig(found.adapter, found.factor)
    pipeline = openvino_genai.LLMPipeline(str(folder), "CPU", adapters=adapters, **exact)
    config = openvino_genai.GenerationConfig(max_new_tokens=8, ignore_eos=True, apply_chat_template=False)
    for said in adapted[:3]:
        made = pipeline.generate(openvino.Tensor(np.array([said.ids], np.int64)), config)
        assert list(made.tokens[0]) == said.answer


def _greedy(files: ModelFiles, home: Path, *adapters: Adapter | None) -> list[str]:
    """What the openvino engine answers as it serves this model, with each adapter."""
    engine = create("openvino")
    options = LoadOptions(context=256, parallel=1, threads=1, flags={"precision": "f32", "kv_precision": "f32"})
    engine.load(files, engine.plan(files, options, Settings(home=str(home)), detect()))
    sampling = Sampling(max_tokens=8, temperature=0, ignore_eos=True)
    answers = []
    for adapter in adapters:
        chunks: list[str] = []

        def emit(chunk: Chunk | None, told: list[str] = chunks) -> bool:
            told.append(chunk.text if chunk else "")
            return False

        engine.generate(
            Request(id="r", kind="complete", prompt=parity.PROMPTS[0], sampling=sampling, adapter=adapter), emit
        )
        answers.append("".join(chunks))
    engine.close()
    return answers


def test_on_a_base_that_is_gguf_it_is_not_ignored(merged: Store, tmp_path: Path) -> None:
    """OpenVINO GenAI takes an adapter with a GGUF file, and answers as if there were none. Our engine does not."""
    make(merged, "convert", "tiny", name="half-gguf", to="gguf")
    pirate = Adapter(name="pirate", path=model_files(merged, "pirate").directory, digest="sha256:pirate")
    plain, adapted = _greedy(model_files(merged, "half-gguf"), tmp_path, None, pirate)
    assert _greedy(model_files(merged, "merged-ir"), tmp_path, None) == [adapted]
    assert plain != adapted


def test_history_names_base_and_adapter(merged: Store) -> None:
    found = history(merged, "merged")
    assert {each.role for each in found[1:]} >= {"base", "adapter"}
    (referrer,) = merged.referrers(merged.resolve("merged").digest, parity.ARTIFACT_TYPE)
    assert json.loads(attached(merged, referrer))["reference"] == "PEFT"


def test_an_adapter_is_converted_beside_its_base_and_nothing_else_is(refit_store: Store) -> None:
    with pytest.raises(InvalidRequest, match="beside its base"):
        make(refit_store, "convert", "pirate", to="gguf")
    with pytest.raises(InvalidRequest, match="kl would do nothing"):
        make(refit_store, "convert", "pirate", roles={"of": "tiny"}, to="gguf", kl=0.1)
    with pytest.raises(InvalidRequest, match="base of an adapter"):
        make(refit_store, "convert", "tiny", roles={"of": "pirate"}, to="gguf")


def test_a_quantised_base_is_refused_and_its_origin_named(merged: Store) -> None:
    make(merged, "quantize", "tiny", name="four-bits", to="openvino-int4")
    with pytest.raises(UnsupportedFormat, match="openvino") as caught:
        make(merged, "merge", "four-bits", roles={"adapter": "pirate"})
    assert "tiny" in (caught.value.hint or "")


def test_an_adapter_of_another_model_is_refused(merged: Store, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    source = Path(model_files(merged, "pirate").directory)
    folder = tmp_path / "stranger"
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    weights = load_file(source / "adapter_model.safetensors")
    deeper = {name.replace("layers.3", "layers.9"): values for name, values in weights.items()}
    wider = {name: torch.zeros(len(values), 8) if "lora_A" in name else values for name, values in weights.items()}
    for changed, reason in ((deeper, "no module"), (wider, "has 192 there, and the adapter's matrix 8")):
        save_file(changed, folder / "adapter_model.safetensors")
        package(merged, Sources(weights=(folder,)), reference=merged.named("stranger"))
        with pytest.raises(InvalidRequest, match=reason) as caught:
            make(merged, "merge", "tiny", roles={"adapter": "stranger"})
        assert "trained on this base" in (caught.value.hint or "")
