"""One adapter, five ways to serve it: PEFT, llama.cpp and OpenVINO with the adapter, and merged in GGUF and IR.

A rank-8 adapter of random numbers large enough to change every answer, on SmolLM2-135M in half floats. Greedy answers
of the served engines are held against PEFT's own; a choice that PEFT itself holds within a tenth of a nat is a tie.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks._bars import Row
from benchmarks.refit._material import shelf
from benchmarks.refit._measures import make
from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Store
from dockyard.engines._openvino_adapters import read as read_adapter
from dockyard.engines._openvino_pipelines import modules_of
from dockyard.ops import pack, parity
from dockyard.ops._checkpoint import Checkpoint, open_checkpoint
from dockyard.ops._speakers import Llama, Speaker, Transformers, speaker
from dockyard.ops.merge import attach
from dockyard.types import Adapter

LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def rows() -> Iterator[Row]:
    with shelf() as store, tempfile.TemporaryDirectory() as scratch:
        make(store, "convert", "smollm2", "base", to="safetensors", precision="F32")
        make(store, "convert", "base", "base-gguf", to="gguf")
        make(store, "convert", "base", "base-ir", to="openvino")
        _adapter(store, Path(scratch) / "loud")
        make(store, "merge", "base", "merged", roles={"adapter": "loud"}, dtype="float32")
        make(store, "convert", "merged", "merged-gguf", to="gguf")
        make(store, "convert", "merged", "merged-ir", to="openvino")
        make(store, "convert", "loud", "loud-gguf", roles={"of": "base"}, to="gguf")
        base = open_checkpoint(store, "base")
        plain = parity.listen(Transformers(model=base.model, tokenizer=base.tokenizer))
        adapted = Transformers(model=attach(base.model, model_files(store, "loud")), tokenizer=base.tokenizer)
        said = parity.listen(adapted)
        changed = sum(mine.answer != theirs.answer for mine, theirs in zip(said, plain, strict=True))
        yield Row("answers that the adapter changes", f"{changed} of {len(said)}", "all", changed == len(said))
        llama = Llama(
            Path(model_files(store, "base-gguf").weights[0]), adapter=Path(model_files(store, "loud-gguf").weights[0])
        )
        yield _row("llama.cpp, base and adapter", said, llama)
        for name in ("merged", "merged-gguf", "merged-ir"):
            yield _row(name, said, speaker(model_files(store, name)))
        yield _openvino(store, said)


def _row(what: str, said: list[parity.Said], other: Speaker) -> Row:
    found = parity.compare(said, "PEFT", other, parity.Limits(kl=0.01, prefix=16))
    other.close()
    told = f"{found.kl:.5f} nats, {found.prefix} of {found.positions} greedy tokens on the worst prompt"
    return Row(what, told, "ids equal, all greedy tokens, <= 0.01 nats", not found.refusal)


def _openvino(store: Store, said: list[parity.Said]) -> Row:
    import numpy as np
    import openvino
    import openvino_genai

    folder = Path(model_files(store, "base-ir").weights[0]).parent
    loud = model_files(store, "loud")
    found = read_adapter(Adapter(name="loud", path=loud.directory, digest=""), modules_of(folder))
    exact = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    adapters = openvino_genai.AdapterConfig(found.adapter, found.factor)
    pipeline = openvino_genai.LLMPipeline(str(folder), "CPU", adapters=adapters, **exact)
    length = len(said[0].answer)
    config = openvino_genai.GenerationConfig(max_new_tokens=length, ignore_eos=True, apply_chat_template=False)
    equal = 0
    for each in said:
        made = pipeline.generate(openvino.Tensor(np.array([each.ids], np.int64)), config)
        equal += _same(each, list(made.tokens[0]))
    return Row("OpenVINO GenAI, base and adapter", f"{equal} of {len(said)} answers", "all", equal == len(said))


def _same(said: parity.Said, answer: list[int]) -> bool:
    """Whether an answer is the same, or parts from it at a tie, after which the two are asked different things."""
    for place, (mine, theirs) in enumerate(zip(said.answer, answer, strict=True)):
        if mine != theirs:
            return bool(said.logprobs[place, mine] - said.logprobs[place, theirs] <= parity.EXACT.tie)
    return True


def _adapter(store: Store, folder: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    opened: Checkpoint = open_checkpoint(store, "base")
    torch.manual_seed(11)
    config = LoraConfig(r=8, lora_alpha=20, target_modules=LAYERS, task_type="CAUSAL_LM")
    adapted = get_peft_model(opened.model, config)
    for key, values in adapted.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(values, std=0.05)
    adapted.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)
    pack.package(store, pack.Sources(weights=(folder,)), reference=store.named("loud"))
