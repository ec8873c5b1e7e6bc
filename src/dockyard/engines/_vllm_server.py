"""vLLM's server: begun as a child, reached over a Unix socket that only this user can open, with a key of its own."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from dockyard.engines import LoadPlan, _vllm_guard
from dockyard.engines._upstream_errors import Refusal
from dockyard.engines._vllm_plan import Flags, adaptable, adapters, folder, tool_parser
from dockyard.errors import LoadFailed, WorkerCrashed
from dockyard.types import Json, ModelFiles

MODEL = "model"
_QUIET = {
    "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
    "VLLM_DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip
"""No statistics to anybody, and nothing fetched: all that it needs is in the model's folder."""


class Server:
    """One model. ``ask`` and ``stream`` may be called from several threads at once."""

    def __init__(self, files: ModelFiles, plan: LoadPlan, flags: Flags) -> None:
        self._folder = tempfile.mkdtemp(prefix="dockyard-")
        self._socket = str(Path(self._folder) / "vllm.sock")
        self._key = secrets.token_urlsafe(32)
        self._refusal = Refusal("vLLM", self._key)
        self._reference = files.reference
        self._last = ""
        self._serving = False
        run = [*command(files, plan, flags), "--uds", self._socket]
        if (template := _template(files)) is not None:
            path = Path(self._folder) / "template.jinja"
            path.write_text(template, encoding="utf-8")
            run += ["--chat-template", str(path)]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", _vllm_guard.__file__, *run],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it outlives the worker for as long as it takes to end what is below it
            env=self._environment(plan),
        )
        self._log = threading.Thread(target=self._copy_log, name="log", daemon=True)
        self._log.start()
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise
        self._serving = True
        self.version = f"vLLM {self._version()}".rstrip()

    def ask(self, path: str, body: Json) -> bytes:
        """The whole reply to a POST."""
        with self._open(path, body) as reply:
            return reply.read()

    def stream(self, path: str, body: Json, unwanted: Callable[[], bool]) -> Iterator[str]:
        """The data of each event. Hangs up, which frees the slot, once ``unwanted`` says so."""
        with self._open(path, body, unwanted) as reply:
            while line := reply.readline():
                if line.startswith(b"data:"):
                    data = line[5:].strip().decode("utf-8", "replace")
                    if data == "[DONE]":
                        return
                    yield data

    def close(self) -> None:
        self._serving = False
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_vllm_guard.SECONDS + 1)
        self._log.join(1.0)
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.contextmanager
    def _open(
        self, path: str, body: Json, unwanted: Callable[[], bool] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        connection = _UnixConnection(self._socket)
        done = threading.Event()
        left = threading.Event()
        try:
            headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
            connection.request("POST", path, msgspec.json.encode(body), headers)
            if unwanted is not None:
                args = (connection.sock, unwanted, done, left)
                threading.Thread(target=_hang_up, args=args, name="hang up", daemon=True).start()
            with connection.getresponse() as reply:
                if reply.status != 200:
                    raise self._refusal.of_reply(reply.status, reply.read())
                yield reply
        except (OSError, http.client.HTTPException) as error:
            if not left.is_set():
                raise WorkerCrashed(f"vLLM of {self._reference} went away: {error!r}") from error
        finally:
            done.set()
            connection.close()

    def _environment(self, plan: LoadPlan) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("VLLM_", "PYTHON"))}
        if plan.details["threads"]:
            kept |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(plan.threads)}
        return {**kept, **_QUIET, "VLLM_API_KEY": self._key}

    def _get(self, path: str) -> tuple[int, bytes]:
        with contextlib.closing(_UnixConnection(self._socket)) as connection:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self._key}"})
            reply = connection.getresponse()
            return reply.status, reply.read()

    def _wait_ready(self) -> None:
        """Until it says it is healthy; how long that may take is the gateway's to decide."""
        while self._process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self._get("/health")[0] == 200:
                    return
            time.sleep(0.1)
        self._log.join(1.0)
        raise LoadFailed(f"vLLM can't load {self._reference}: exit {self._process.returncode}; {self._last}")

    def _version(self) -> str:
        with contextlib.suppress(OSError, http.client.HTTPException, msgspec.DecodeError, KeyError, TypeError):
            return str(msgspec.json.decode(self._get("/version")[1])["version"])
        return ""

    def _copy_log(self) -> None:
        """Into the worker's own log, without what requests said. If vLLM ends by itself, so must the worker."""
        for line in self._process.stdout or ():
            os.write(2, line)
            text = line.decode("utf-8", "replace").strip()
            if "Error" in text or not self._last:
                self._last = self._refusal.redacted(text)
        if self._serving:
            os.write(2, f"vLLM ended by itself: {self._process.wait()}\n".encode())
            os._exit(1)


def _hang_up(sock: socket.socket, unwanted: Callable[[], bool], done: threading.Event, left: threading.Event) -> None:
    """Ends a connection from aside, since its reader may wait long for the next byte."""
    while not done.wait(0.05):
        if unwanted():
            left.set()
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            return


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


def _template(files: ModelFiles) -> str | None:
    """The artifact's own chat template, given as text or as a file's path; None leaves it to the model's folder."""
    given = files.chat_template
    if given is None or "\n" in given or "{" in given or not Path(given).is_absolute():
        return given
    try:
        return Path(given).read_text(encoding="utf-8")
    except OSError as error:
        raise LoadFailed(f"{files.reference}: the chat template can't be read: {error}") from error


def command(files: ModelFiles, plan: LoadPlan, flags: Flags) -> list[str]:
    """What to run; the socket is still to be added. The key goes by the environment, where other users can't see it."""
    found = [str(plan.details["python"]), "-m", "vllm.entrypoints.openai.api_server", "--model", files.directory]
    found += [
        "--served-model-name",
        MODEL,
        "--runner",
        str(plan.details["runner"]),
        "--dtype",
        str(plan.details["dtype"]),
    ]
    found += ["--max-model-len", str(plan.context), "--max-num-seqs", str(plan.parallel)]
    found += ["--kv-cache-dtype", flags.kv_cache_dtype, "--tensor-parallel-size", str(flags.tensor_parallel)]
    found += ["--disable-uvicorn-access-log", "--disable-fastapi-docs", "--max-logprobs", "20"]
    found += ["--enable-prefix-caching" if flags.prefix_caching else "--no-enable-prefix-caching"]
    if plan.details["runner"] == "generate":
        found += ["--enable-prompt-tokens-details"]
    if plan.predicted.kv_cache or flags.kv_bytes:
        found += ["--kv-cache-memory-bytes", str(plan.predicted.kv_cache or flags.kv_bytes)]
    if flags.gpu_memory is not None:
        found += ["--gpu-memory-utilization", str(flags.gpu_memory)]
    if flags.max_batched_tokens is not None:
        found += ["--max-num-batched-tokens", str(flags.max_batched_tokens)]
    if flags.eager:
        found += ["--enforce-eager"]
    if flags.reasoning_parser is not None:
        found += ["--reasoning-parser", flags.reasoning_parser]
    if (parser := tool_parser(files, flags)) is not None:
        found += ["--enable-auto-tool-choice", "--tool-call-parser", parser]
    offered = adapters(files)
    if (needs := adaptable(offered)) is not None:
        found += ["--enable-lora", "--max-loras", str(min(needs.count, 8)), "--max-lora-rank", str(needs.rank)]
        found += ["--lora-modules", *(f"{each.name}={folder(Path(each.path))}" for each in offered)]
    return found
