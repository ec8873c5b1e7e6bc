"""The vllm engine: how vLLM is begun, driven and ended. With a stand-in everywhere, with the real one where it is.

``DOCKYARD_TEST_VLLM`` names an environment with vLLM, ``DOCKYARD_TEST_VLLM_MODEL`` a small chat model in safetensors.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dockyard.artifact.formats import read_facts
from dockyard.engines import LoadPlan, choose
from dockyard.errors import (
    ContextOverflow,
    EngineUnavailable,
    InvalidRequest,
    LoadFailed,
    SettingsError,
    UnsupportedParameter,
    WorkerCrashed,
)
from dockyard.fleet.runner import Runner, create
from dockyard.hardware import Accelerator, Hardware
from dockyard.settings import Settings
from dockyard.types import Adapter, Chunk, LoadOptions, Message, ModelFiles, Request, Sampling

pytestmark = pytest.mark.anyio
MACHINE = Hardware(cores=2, memory_total=64 << 30, memory_available=32 << 30)
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096, "vocab_size": 16,
}  # fmt: skip
REAL = os.environ.get("DOCKYARD_TEST_VLLM"), os.environ.get("DOCKYARD_TEST_VLLM_MODEL")


def model(folder: Path, **changes: Any) -> ModelFiles:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    header = json.dumps({"model.embed_tokens.weight": {"dtype": "F32", "shape": [16, 8], "data_offsets": [0, 512]}})
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(512))
    return of(folder, **changes)


def of(folder: Path, **changes: Any) -> ModelFiles:
    weights = sorted(folder.glob("*.safetensors"))
    facts = read_facts(weights)
    fields = {
        "reference": "docker.io/ai/tiny:latest", "digest": "sha256:0", "directory": str(folder),
        "format": facts.format, "weights": tuple(map(str, weights)), "facts": facts,
    }  # fmt: skip
    return ModelFiles(**{**fields, **changes})


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A folder like a virtual environment, whose vLLM is the stand-in; ``log`` in it tells what that was sent."""
    home = tmp_path / "environment"
    package = home / "packages" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for folder in (package, *package.parents[:2]):
        (folder / "__init__.py").touch()
    (package / "api_server.py").write_text((Path(__file__).parent / "fake_vllm.py").read_text())
    (home / "bin").mkdir()
    python = home / "bin" / "python"
    python.write_text(
        f"#!/bin/sh\nPYTHONPATH={home}/packages FAKE_LOG={home}/log exec {sys.executable} \"$@\"\n"
    )  # fmt: skip
    python.chmod(0o755)
    return home


def plan_of(files: ModelFiles, settings: Settings, machine: Hardware = MACHINE, **options: Any) -> LoadPlan:
    chosen = choose(files, LoadOptions(**options), settings, machine)
    assert chosen.engine.name == "vllm"
    return chosen.engine.plan(files, LoadOptions(**options), settings, machine)


def runner_of(files: ModelFiles, settings: Settings, log: Path, **options: Any) -> Runner:
    chosen = choose(files, LoadOptions(**options), settings, MACHINE).engine
    return create(chosen, files, chosen.plan(files, LoadOptions(**options), settings, MACHINE), settings, log)


def told(environment: Path) -> list[Any]:
    return [json.loads(line) for line in (environment / "log").read_text().splitlines()]


def chat(text: str, **fields: Any) -> Request:
    fields.setdefault("id", text)
    return Request(messages=(Message(role="user", content=text),), **fields)


async def collect(runner: Runner, request: Request) -> list[Chunk]:
    return [chunk async for chunks in runner.generate(request) for chunk in chunks]


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


@pytest.fixture
async def loaded(environment: Path, tmp_path: Path) -> AsyncIterator[Runner]:
    runner = runner_of(model(tmp_path / "tiny"), Settings(vllm=str(environment)), tmp_path / "worker.log")
    await runner.start()
    yield runner
    await runner.stop()


async def test_requests_go_there_and_answers_come_back(loaded: Runner, environment: Path) -> None:
    sampling = Sampling(max_tokens=9, temperature=0, top_k=4)
    chunks = await collect(loaded, chat("hello world", sampling=sampling, extra={"tools": [{"type": "function"}]}))
    assert text_of(chunks).split() == ["model:", "hello", "world"]
    assert chunks[-1].finish == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    path, body = told(environment)[-1]
    assert path == "/v1/chat/completions"
    assert (body["max_tokens"], body["top_k"], body["tools"]) == (9, 4, [{"type": "function"}])
    (tokens,) = await collect(loaded, Request(id="t", kind="tokenize", prompt="a bbb"))
    assert tokens.result is not None
    assert tokens.result.tokens == (1, 3)
    assert text_of(await collect(loaded, Request(id="d", kind="detokenize", prompt=[1, 3]))) == "x xxx"
    (vectors,) = await collect(loaded, Request(id="e", kind="embed", inputs=("abc",)))
    assert vectors.result is not None
    assert struct.unpack("<2f", vectors.result.vectors[0]) == (3.0, 0.5)


async def test_what_is_wrong_is_an_error_of_ours(loaded: Runner) -> None:
    with pytest.raises(ContextOverflow, match="8 tokens"):
        await collect(loaded, chat("too long"))
    with pytest.raises(UnsupportedParameter) as caught:
        await collect(loaded, chat("x", extra={"guided_regex": "a"}))
    assert caught.value.param == "guided_regex"
    offered = Adapter(name="a", path="/a", digest="sha256:1", scale=0.5)
    with pytest.raises(InvalidRequest, match="scale"):
        await collect(loaded, chat("x", adapter=offered))
    assert text_of(await collect(loaded, chat("still there")))


async def test_hanging_up_frees_the_slot(loaded: Runner, environment: Path) -> None:
    stream = loaded.generate(chat("forever"))
    await stream.__anext__()
    await stream.aclose()
    for _ in range(200):
        if ["hung up", None] in told(environment):
            break
        await asyncio.sleep(0.05)
    assert ["hung up", None] in told(environment)


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_nothing_of_vllm_outlives_its_worker(environment: Path, tmp_path: Path, how: str) -> None:
    runner = runner_of(model(tmp_path / "tiny"), Settings(vllm=str(environment)), tmp_path / "worker.log")
    await runner.start()
    assert runner.pid is not None
    for _ in range(200):
        family = psutil.Process(runner.pid).children(recursive=True)
        if len(family) == 4:  # the guard, the server, and two below it in sessions of their own
            break
        await asyncio.sleep(0.05)
    assert len(family) == 4
    assert (runner.rss() or 1) > 0
    if how == "killed":
        os.kill(runner.pid, signal.SIGKILL)
        await runner.wait_exit()
    await runner.stop()
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert len(gone) == len(family)


async def test_a_server_that_dies_takes_the_worker_along(loaded: Runner) -> None:
    with pytest.raises(WorkerCrashed):
        await collect(loaded, chat("die"))
    async with asyncio.timeout(10):
        assert not (await loaded.wait_exit()).expected


async def test_a_load_that_fails_says_vllms_own_reason(environment: Path, tmp_path: Path) -> None:
    files, settings = model(tmp_path / "tiny"), Settings(vllm=str(environment))
    runner = runner_of(files, settings, tmp_path / "worker.log", flags={"dtype": "float16"})
    with pytest.raises(LoadFailed, match="not for this machine"):
        await runner.start()


async def test_how_it_is_begun(environment: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "french"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"r": 12}')
    offered = Adapter(name="french", path=str(adapter), digest="sha256:1")
    files = model(tmp_path / "tiny", offers=(offered,), chat_template="{{ messages }} {{ tools }}")
    flags = {"eager": True, "kv_bytes": 1 << 24}
    options = {"context": 1024, "parallel": 3, "threads": 1, "flags": flags}
    runner = runner_of(files, Settings(vllm=str(environment)), tmp_path / "worker.log", **options)
    await runner.start()
    answer = await collect(runner, chat("bonjour", adapter=offered))
    await runner.stop()
    assert text_of(answer).startswith("french: ")
    arguments = " ".join(told(environment)[0][1])
    for part in (
        f"--model {files.directory} ", "--max-model-len 1024 ", "--max-num-seqs 3 ", "--enforce-eager",
        f"--kv-cache-memory-bytes {1 << 24}", "--max-lora-rank 16", f"--lora-modules french={adapter}",
        "--tool-call-parser llama3_json", "--chat-template ", "--runner generate", "--dtype float32",
    ):  # fmt: skip
        assert part in arguments
    assert "trust-remote-code" not in arguments
    assert "api-key" not in arguments


def test_without_vllm_the_line_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnavailable) as caught:
        plan_of(model(tmp_path / "tiny"), Settings())
    assert "pip install vllm" in (caught.value.hint or "")
    assert "`dockyard convert MODEL NAME --to gguf`" in (caught.value.hint or "")
    with pytest.raises(SettingsError, match="no Python"):
        plan_of(model(tmp_path / "tiny"), Settings(vllm=str(tmp_path / "nowhere")))


def test_the_environment_by_its_folder_its_python_or_its_command(environment: Path, tmp_path: Path) -> None:
    (environment / "bin" / "vllm").touch(mode=0o755)
    files = model(tmp_path / "tiny")
    for named in (environment, environment / "bin", environment / "bin" / "python", environment / "bin" / "vllm"):
        assert plan_of(files, Settings(vllm=str(named))).details["python"] == str(environment / "bin" / "python")


def test_memory_as_asked_and_as_there_is(environment: Path, tmp_path: Path) -> None:
    files, settings = model(tmp_path / "tiny"), Settings(vllm=str(environment))
    token = 4 * (files.facts.kv_elements or 0)
    assert token > 0
    plan = plan_of(files, settings, context=2048, parallel=4)
    assert plan.predicted.kv_cache == 2048 * 4 * token
    assert plan_of(files, settings, context=4096, parallel=64).predicted.kv_cache == 32_768 * token
    assert plan_of(files, settings).context == 4096
    gpu = Accelerator(name="H100", memory_total=80 << 30, memory_available=79 << 30)
    there = Hardware(cores=2, memory_total=64 << 30, memory_available=32 << 30, accelerators=(gpu,))
    assert plan_of(files, settings, there).predicted.kv_cache == 0
    assert plan_of(files, settings, there).details["dtype"] == "auto"
    half = plan_of(files, settings, context=2048, parallel=4, flags={"dtype": "bfloat16"})
    assert half.predicted.kv_cache == plan.predicted.kv_cache // 2
    for options, param in (
        ({"context": 4097}, "context"),
        ({"flags": {"kv_bytes": 1 << 20, "trust_remote_code": True}}, "flags"),
        ({"flags": {"tool_parser": "/etc/passwd"}}, "flags"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            plan_of(files, settings, **options)
        assert (caught.value.param or "").startswith(param)


@pytest.mark.skipif(None in REAL, reason="DOCKYARD_TEST_VLLM and DOCKYARD_TEST_VLLM_MODEL name no vLLM")
@pytest.mark.model
async def test_the_real_one(tmp_path: Path) -> None:
    runner = runner_of(
        of(Path(REAL[1] or "")), Settings(vllm=REAL[0] or ""), tmp_path / "log", context=1024, parallel=4,
        flags={"eager": True},
    )  # fmt: skip
    await runner.start()
    prompt = Request(id="1", kind="complete", prompt="The capital of France is", sampling=Sampling(max_tokens=3))
    found = await collect(runner, prompt)
    assert text_of(found)
    assert found[-1].usage is not None
    assert found[-1].usage.completion_tokens == 3
    with pytest.raises(ContextOverflow):
        await collect(runner, chat("word " * 3000))
    await runner.stop()
