"""Drives a native ``llama-server``: a child of the worker, on a Unix socket that only this user can reach."""

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
from collections.abc import Callable
from pathlib import Path

import msgspec

from dockyard.engines import LoadPlan
from dockyard.engines._llama_answer import error_of
from dockyard.engines._llama_plan import BATCH, SPIN, Flags
from dockyard.errors import DockyardError, EngineError, LoadFailed, SettingsError, WorkerCrashed
from dockyard.settings import Settings
from dockyard.types import ModelFiles

_ROUTES = {"chat": "/v1/chat/completions", "complete": "/v1/completions"}

_TIED = "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9,0,0,0);os.getppid()==int(sys.argv[1]) and os.execv(sys.argv[2],sys.argv[2:])"  # noqa: E501
"""Asks the kernel for SIGKILL when the worker's main thread ends, then becomes llama-server."""


def find(settings: Settings) -> str | None:
    """The llama-server to drive: the one in settings, else one on the path; None without or where it is switched off.

    Raises SettingsError if settings name one that can't be run.
    """
    if settings.llama_server:
        found = shutil.which(settings.llama_server)
        if found is None:
            raise SettingsError(f"llama_server: {settings.llama_server} can't be run", param="llama_server")
        return found
    return shutil.which("llama-server") if settings.native_llama else None


class Native:
    """One llama-server with one loaded model. ``stream`` may be called from several threads at once."""

    def __init__(self, files: ModelFiles, plan: LoadPlan, flags: Flags, template: str | None) -> None:
        self._folder = tempfile.mkdtemp(prefix="dockyard-")
        self._socket = str(Path(self._folder) / "llama.sock")
        self._key = secrets.token_urlsafe(32)
        self._reference = files.reference
        command = _command(str(plan.details["native"]), files, plan, flags)
        command += ["--host", self._socket]
        if template is not None:
            path = Path(self._folder) / "template.jinja"
            path.write_text(template, encoding="utf-8")
            command += ["--chat-template-file", str(path)]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                **SPIN,
                **{name: value for name, value in os.environ.items() if not name.startswith(("LLAMA_", "AIP_"))},
                "LLAMA_API_KEY": self._key,
            },
        )
        self._last = ""
        self._serving = False
        self._log = threading.Thread(target=self._copy_log, name="log", daemon=True)
        self._log.start()
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise
        self._serving = True
        self.version = f"{plan.details['native']} {self._build()}".rstrip()

    def stream(self, kind: str, body: bytes, receive: Callable[[str | bytes], bool]) -> None:
        """Run a request; ``receive`` gets each event's JSON. Hanging up, as True from it does, frees the slot."""
        with contextlib.closing(self._connect()) as connection:
            try:
                connection.request("POST", _ROUTES[kind], body, self._headers())
                with connection.getresponse() as reply:
                    if reply.status != 200:
                        raise _refusal(reply.status, reply.read())
                    while line := reply.readline():
                        if line.startswith(b"data: {"):
                            if receive(line[6:]):
                                return
                        elif line.startswith(b"data: [DONE]"):
                            return
                        else:
                            _raise_error_event(line)
                    raise ConnectionError("it hung up in the middle of an answer")
            except (OSError, http.client.HTTPException) as error:
                raise WorkerCrashed(f"llama-server of {self._reference} went away: {error}") from error

    def close(self) -> None:
        self._serving = False
        self._process.kill()
        self._process.wait()
        self._log.join(1.0)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}

    def _connect(self) -> http.client.HTTPConnection:
        return _UnixConnection(self._socket)

    def _wait_ready(self) -> None:
        """Until it says it is healthy; how long that may take is the gateway's to decide."""
        while self._process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(self._connect()) as to:
                to.request("GET", "/health", headers=self._headers())
                if to.getresponse().status == 200:
                    return
            time.sleep(0.02)
        self._log.join(1.0)
        raise LoadFailed(f"llama-server can't load {self._reference}: exit {self._process.returncode}; {self._last}")

    def _build(self) -> str:
        """Its build, as it tells it; empty where it does not."""
        try:
            with contextlib.closing(self._connect()) as connection:
                connection.request("GET", "/props", headers=self._headers())
                found = msgspec.json.decode(connection.getresponse().read())
        except (OSError, http.client.HTTPException, msgspec.DecodeError):
            return ""
        return str(found.get("build_info", "")) if isinstance(found, dict) else ""

    def _copy_log(self) -> None:
        """Into the worker's own log, which is kept short. If it ends by itself, so must the worker: it has no model."""
        for line in self._process.stdout or ():
            os.write(2, line)
            self._last = line.decode("utf-8", "replace").strip() or self._last
        if self._serving:
            os.write(2, f"llama-server ended by itself: {self._process.wait()}\n".encode())
            os._exit(1)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


def _refusal(status: int, body: bytes) -> DockyardError:
    return error_of(body) or EngineError(f"llama-server answered {status}: {body[:200]!r}")


def _raise_error_event(line: bytes) -> None:
    """Errors in mid-stream come as ``error: {…}`` in some versions, as a ``data:`` event in others."""
    if line.startswith(b"error: ") and (found := error_of(b'{"error":' + line[7:] + b"}")):
        raise found


def _command(program: str, files: ModelFiles, plan: LoadPlan, flags: Flags) -> list[str]:
    command = [program, "-m", files.weights[0], "-c", str(plan.details["pool"]), "-np", str(plan.parallel)]
    command += ["--kv-unified", "--kv-unified-per-slot", str(plan.context), "-b", str(BATCH), "-ub", str(BATCH)]
    command += ["-t", str(plan.threads), "-tb", str(plan.threads), "--threads-http", str(plan.parallel + 2)]
    command += ["-ctk", flags.cache_type_k, "-ctv", flags.cache_type_v, "-cram", str(flags.prompt_cache >> 20)]
    command += ["-ctxcp", "4" if flags.prompt_cache else "0", "-fit", "off", "-lv", "1", "--no-ui", "--no-slots"]
    command += ["--jinja", "--offline"]
    if flags.rope_freq_base:
        command += ["--rope-freq-base", str(flags.rope_freq_base)]
    if flags.rope_freq_scale:
        command += ["--rope-freq-scale", str(flags.rope_freq_scale)]
    if flags.gpu_layers is not None:
        command += ["-ngl", str(flags.gpu_layers)]
    if files.projector is not None:
        command += ["--mmproj", files.projector]
    for adapter in files.adapters:
        command += ["--lora", adapter]
    return command
