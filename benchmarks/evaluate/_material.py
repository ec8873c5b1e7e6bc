"""What the groups measure with: texts of this repository, the starter model in float32, and peers' environments."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks._peers import PEERS
from benchmarks._serving import pull_starter
from dockyard.api import create_app
from dockyard.artifact.manifest import read_artifact
from dockyard.artifact.store import Store
from dockyard.client import AsyncClient
from dockyard.ops.evaluate.result import Run
from dockyard.ops.evaluate.run import Plan, evaluate
from dockyard.ops.evaluate.subject import subject_of
from dockyard.ops.evaluate.suite import load
from dockyard.settings import Settings

ROOT = Path(__file__).parents[2]
LM_EVAL = "lm-eval[api]==0.4.13"
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def environment(name: str, package: str, program: str, *, shared: bool = False) -> Path:
    """A program of a package in an environment of its own; ``shared`` lets it see this one's libraries (torch), and is
    this one where it has just that version."""
    own_program = Path(sys.executable).with_name(program)
    if shared and own_program.exists() and _version(package) == package.partition("==")[2]:
        return own_program
    folder = PEERS / name
    found = folder / "bin" / program
    if not found.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        if shared:
            (site,) = folder.glob("lib/python3*/site-packages")
            own = Path(sys.prefix).joinpath("lib", site.parent.name, "site-packages")
            (site / "shared.pth").write_text(f"{own}\n")
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-q", package], check=True)
    return found


def _version(package: str) -> str | None:
    """Which one this environment has of a package with extras and a version."""
    try:
        return version(package.partition("==")[0].partition("[")[0])
    except PackageNotFoundError:
        return None


def paragraphs() -> list[str]:
    """Plain paragraphs of the documentation, in a fixed order."""
    found = []
    for path in sorted((ROOT / "docs").rglob("*.md")):
        if "reference" in path.parts:
            continue
        for block in re.split(r"\n\s*\n", re.sub(r"```.*?```", "", path.read_text(), flags=re.S)):
            text = " ".join(block.split())
            if len(text) > 200 and text[0].isalpha() and "|" not in text:
                found.append(text)
    return found


def texts(count: int) -> list[dict[str, str]]:
    return [{"text": text} for text in paragraphs()[:count]]


def questions(count: int) -> list[dict[str, object]]:
    """How a sentence goes on: the right half among halves of others."""
    dice = random.Random(7)
    halves = []
    for text in paragraphs():
        for sentence in _SENTENCE.split(text):
            words = sentence.split()
            if 10 <= len(words) <= 24:
                middle = len(words) // 2
                halves.append((" ".join(words[:middle]), " ".join(words[middle:])))
    dice.shuffle(halves)
    found = []
    for number, (first, second) in enumerate(halves[:count]):
        others = dice.sample([each for place, (_, each) in enumerate(halves) if place != number], 3)
        label = dice.randrange(4)
        choices = [*others[:label], second, *others[label:]]
        found.append({"question": first, "choices": choices, "label": label})
    return found


def write_lines(path: Path, rows: list[dict[str, object]] | list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def starter(folder: Path) -> Path:
    """The starter model's GGUF file in ``folder``, pulled as a user would."""
    pull_starter(folder / "pulled")
    store = Store.open(Settings(home=str(folder / "pulled")))
    (layer,) = read_artifact(store, store.resolve("smollm2").digest).of("weight")
    target = folder / "starter.gguf"
    os.link(store.blob_path(layer.descriptor.digest), target)
    return target


def full_precision(weights: Path) -> Path:
    """The GGUF file with all its tensors as float32, so that no kernel rounds what goes into it; made once."""
    kept = PEERS / "starter.f32.gguf"
    if kept.exists():
        return kept
    target = kept.with_suffix(".part")
    PEERS.mkdir(parents=True, exist_ok=True)
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(weights)
    field = reader.get_field("general.architecture")
    assert field is not None
    writer = gguf.GGUFWriter(target, str(field.contents()))
    for each in reader.fields.values():
        if each.name.startswith("GGUF.") or each.name in ("general.architecture", "general.file_type"):
            continue
        kind = each.types[0]
        inner = each.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(each.name, each.contents(), kind, sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        shape = tuple(reversed([int(size) for size in tensor.shape]))
        writer.add_tensor(tensor.name, np.ascontiguousarray(values, dtype=np.float32).reshape(shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target.rename(kept)


TO_FOLDER = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, name, target = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
if hasattr(model.config, "quantization_config"):
    del model.config.quantization_config
model.hf_quantizer = None
model.save_pretrained(target)
tokenizer.save_pretrained(target)
"""


def as_folder(weights: Path) -> Path:
    """The same weights as transformers has them: safetensors in float32, with the tokenizer; made once."""
    target, part = PEERS / "starter-hf", PEERS / "starter-hf.part"
    if not target.exists():
        subprocess.run([sys.executable, "-c", TO_FOLDER, weights.parent, weights.name, part], check=True)
        part.rename(target)
    return target


def in_process(home: Path, suite: Path, model: str, **plan: Any) -> Run:
    """A run of a suite on a model that the application serves in this process."""

    async def walk() -> Run:
        async with AsyncClient(app=create_app(Settings(home=str(home)), trusted=True)) as client:
            subject = await subject_of(client, model)
            return await evaluate(load(suite), subject, client, home, Plan(**plan))

    return asyncio.run(walk())
