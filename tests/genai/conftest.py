"""The starter model under OpenVINO GenAI, loaded once, and adapters made of chance."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from dockyard.artifact.formats import read_facts
from dockyard.engines import IsolatedEngine, create
from dockyard.errors import DockyardError
from dockyard.hardware import detect
from dockyard.settings import Settings
from dockyard.types import Adapter, Chunk, LoadOptions, Message, ModelFiles, Request, Sampling

SIZES = {"q_proj": (576, 576), "v_proj": (576, 192)}


def files_of(path: Path) -> ModelFiles:
    return ModelFiles(
        reference="docker.io/ai/smollm2:latest", digest="sha256:starter", directory=str(path.parent), format="gguf",
        weights=(str(path),), facts=read_facts([path]),
    )  # fmt: skip


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted once for all tests."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def engine(starter_gguf: Path, home: Path) -> Iterator[IsolatedEngine]:
    yield from loaded(starter_gguf, home, context=2048, parallel=8, threads=1)


def loaded(path: Path, home: Path, **options: object) -> Iterator[IsolatedEngine]:
    pytest.importorskip("openvino_genai", reason="the extra `openvino` is not installed")
    made = create("openvino")
    files = files_of(path)
    plan = made.plan(files, LoadOptions(**options), Settings(home=str(home)), detect())
    made.load(files, plan)
    yield made
    made.close()


def chat(text: str, sampling: Sampling | None = None, **fields: object) -> Request:
    asked = sampling or Sampling(max_tokens=8, temperature=0)
    return Request(id="r", messages=(Message(role="user", content=text),), sampling=asked, **fields)


def run(engine: IsolatedEngine, request: Request) -> list[Chunk]:
    chunks: list[Chunk] = []

    def emit(chunk: Chunk | None) -> bool:
        if chunk is not None:
            chunks.append(chunk)
        return False

    engine.generate(request, emit)
    return chunks


def said(chunks: list[Chunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


def together(engine: IsolatedEngine, requests: list[Request]) -> list[str | DockyardError]:
    """Ask all at once; each answer, or what it failed with."""
    answers: list[str | DockyardError] = [""] * len(requests)

    def one(index: int) -> None:
        try:
            answers[index] = said(run(engine, requests[index]))
        except DockyardError as error:
            answers[index] = error

    threads = [threading.Thread(target=one, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., Adapter]:
    """A rank-8 adapter in PEFT's layout, of numbers that ``seed`` decides."""

    def make(seed: int, *, layers: int = 30, **changes: object) -> Adapter:
        folder = tmp_path / f"adapter-{seed}-{len(changes)}-{layers}"
        folder.mkdir()
        chance = np.random.default_rng(seed)
        tensors = {}
        for layer in range(layers):
            for name, (inputs, outputs) in SIZES.items():
                key = f"base_model.model.model.layers.{layer}.self_attn.{name}.lora_"
                tensors[f"{key}A.weight"] = chance.normal(0, 0.05, (8, inputs)).astype(np.float32)
                tensors[f"{key}B.weight"] = chance.normal(0, 0.15, (outputs, 8)).astype(np.float32)
        save_file(tensors, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": "x", **changes})
        )
        return Adapter(name=f"a{seed}", path=str(folder), digest=f"sha256:{folder}")

    return make
