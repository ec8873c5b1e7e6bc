"""Adapters on llama.cpp: each request gets its own, whatever else is decoded with it."""

from __future__ import annotations

import asyncio
import json
import random
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from dockyard.engines import create
from dockyard.engines._llama_adapters import as_gguf
from dockyard.errors import InvalidRequest, LoadFailed, UnsupportedFormat
from dockyard.fleet.runner import Runner
from dockyard.fleet.runner import create as launch
from dockyard.hardware import detect
from dockyard.types import Adapter, Chunk, LoadOptions, ModelFacts, ModelFiles, Request, Sampling

from .conftest import collect, prepare, said, settings_of, smol

pytestmark = [pytest.mark.anyio, pytest.mark.model]
WIDTH, KV_WIDTH, RANK = 576, 192, 4
MODULES = {"self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (WIDTH, KV_WIDTH),
           "self_attn.v_proj": (WIDTH, KV_WIDTH), "self_attn.o_proj": (WIDTH, WIDTH)}  # fmt: skip


def peft(folder: Path, seed: int, layers: range, **config: object) -> Path:
    """A PEFT adapter of random numbers, large enough to change what the starter model says."""
    folder.mkdir()
    draw = random.Random(seed)
    header, blobs, offset = {}, [], 0
    for layer in layers:
        for module, (inner, outer) in MODULES.items():
            for side, shape in (("A", (RANK, inner)), ("B", (outer, RANK))):
                count = shape[0] * shape[1]
                data = struct.pack(f"<{count}f", *(draw.gauss(0, 0.15) for _ in range(count)))
                name = f"base_model.model.model.layers.{layer}.{module}.lora_{side}.weight"
                header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (offset, offset + len(data))}
                blobs.append(data)
                offset += len(data)
    told = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(told)) + told + b"".join(blobs))
    stated = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, **config}
    (folder / "adapter_config.json").write_text(json.dumps(stated))
    return folder


def with_offers(path: Path, folder: Path) -> ModelFiles:
    """The starter model with three adapters on offer: two folders of PEFT, and one file of GGUF."""
    files = smol(path)
    offers = [
        Adapter(name=f"a{seed}", path=str(peft(folder / f"a{seed}", seed, range(4, 10))), digest=f"sha256:a{seed}")
        for seed in (1, 2, 3)
    ]
    ready = as_gguf(offers[2], files, folder / "cache")
    offers[2] = msgspec.structs.replace(offers[2], path=ready)
    return msgspec.structs.replace(files, offers=tuple(offers))


@pytest.fixture(scope="module")
def offered(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return with_offers(starter_gguf, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module", params=["embedded", "native"])
async def adapted(
    request: pytest.FixtureRequest, offered: ModelFiles, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Runner]:
    home = tmp_path_factory.mktemp("home")
    settings = msgspec.structs.replace(settings_of(request.param), home=str(home))
    engine = create("llamacpp")
    plan = engine.plan(offered, LoadOptions(context=128, parallel=4, threads=1), settings, detect())
    runner = launch(engine, offered, plan, settings, home / "log")
    await runner.start()
    yield runner
    await runner.stop()


def asking(adapter: Adapter | None, number: int = 0) -> Request:
    sampling = Sampling(max_tokens=8, temperature=0, ignore_eos=True)
    return Request(id=f"a{number}", kind="complete", prompt="The captain looked at the sea and", sampling=sampling,
                   adapter=adapter)  # fmt: skip


async def test_each_of_many_at_once_gets_its_own_adapter(adapted: Runner, offered: ModelFiles) -> None:
    """Compared by which first tokens are the likeliest: how many are decoded at once moves a likelihood by up to half a
    nat, and of two that are as likely a crowd may take the other."""
    choices = (None, *offered.offers)
    alone = [await collect(adapted, telling(choice)) for choice in choices]
    assert len({said(each) for each in alone}) == 4
    crowd = [choices[number % 4] for number in range(16)]
    answers = await asyncio.gather(*(collect(adapted, telling(choice, number)) for number, choice in enumerate(crowd)))
    for number, answer in enumerate(answers):
        assert [first_is(answer, each) for each in alone] == [place == number % 4 for place in range(4)]


def telling(adapter: Adapter | None, number: int = 0) -> Request:
    """Asked with the likeliest first tokens."""
    request = asking(adapter, number)
    return msgspec.structs.replace(request, sampling=msgspec.structs.replace(request.sampling, logprobs=10))


def first_is(answer: list[Chunk], other: list[Chunk]) -> bool:
    """Whether most of the ten likeliest first tokens are the same: two of these adapters share three at most."""
    told, expected = ({each.token for each in one[0].logprobs[0].top} for one in (answer, other))
    return len(told & expected) > 5


async def test_an_adapter_that_weighs_nothing_changes_nothing(adapted: Runner, offered: ModelFiles) -> None:
    bare = said(await collect(adapted, asking(None)))
    nothing = msgspec.structs.replace(offered.offers[0], scale=0.0)
    assert said(await collect(adapted, asking(nothing))) == bare


async def test_probabilities_of_a_prompt_are_the_adapters_too(adapted: Runner, offered: ModelFiles) -> None:
    async def likelihood(choice: Adapter | None) -> float:
        request = msgspec.structs.replace(asking(choice), sampling=Sampling(max_tokens=0, prompt_logprobs=0))
        (chunk,) = await collect(adapted, request)
        assert chunk.result is not None
        return sum(each.logprob for each in chunk.result.prompt_logprobs if each is not None)

    bare, changed = await likelihood(None), await likelihood(offered.offers[0])
    assert abs(bare - changed) > 0.5
    assert await likelihood(None) == pytest.approx(bare, rel=0.03)


async def test_an_adapter_that_is_not_there_is_refused(adapted: Runner, llama: Runner) -> None:
    stranger = Adapter(name="stranger", path="/nowhere", digest="sha256:none")
    for runner in (adapted, llama):
        with pytest.raises(InvalidRequest, match="stranger"):
            await collect(runner, asking(stranger))


def test_prompts_of_several_adapters_are_not_cached_together(offered: ModelFiles, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="prompt_cache"):
        prepare(offered, "embedded", tmp_path / "log", flags={"prompt_cache": 1 << 20})


def test_a_conversion_is_made_once(starter_gguf: Path, tmp_path: Path) -> None:
    files = smol(starter_gguf)
    adapter = Adapter(name="a", path=str(peft(tmp_path / "a", 1, range(1))), digest="sha256:abc")
    made = Path(as_gguf(adapter, files, tmp_path / "cache"))
    written = made.stat().st_mtime_ns
    assert as_gguf(adapter, files, tmp_path / "cache") == str(made)
    assert made.stat().st_mtime_ns == written
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["abc-llama.gguf"]


@pytest.mark.parametrize("config", [{"use_dora": True}, {"peft_type": "IA3"}, {"modules_to_save": ["lm_head"]}])
def test_what_llama_cpp_can_not_compute_is_refused(
    config: dict[str, object], starter_gguf: Path, tmp_path: Path
) -> None:
    adapter = Adapter(name="odd", path=str(peft(tmp_path / "odd", 1, range(1), **config)), digest="sha256:odd")
    with pytest.raises(UnsupportedFormat, match="odd"):
        as_gguf(adapter, smol(starter_gguf), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_other_architectures_and_broken_files_are_refused(starter_gguf: Path, tmp_path: Path) -> None:
    folder = peft(tmp_path / "a", 1, range(1))
    adapter = Adapter(name="a", path=str(folder), digest="sha256:a")
    files = smol(starter_gguf)
    strange = msgspec.structs.replace(files, facts=ModelFacts(format="gguf", architecture="mamba"))
    with pytest.raises(UnsupportedFormat, match="mamba"):
        as_gguf(adapter, strange, tmp_path / "cache")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(LoadFailed, match="cut short"):
        as_gguf(adapter, files, tmp_path / "cache")
