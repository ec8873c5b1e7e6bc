"""Drives a native ``llama-server``: a child of the worker, on a Unix socket that only this user can reach."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dockyard.engines import LoadPlan
from dockyard.engines._llama_flags import Flags
from dockyard.engines._llama_http import Door
from dockyard.engines._llama_plan import SPIN
from dockyard.errors import LoadFailed, SettingsError
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

    def __init__(
        self, files: ModelFiles, plan: LoadPlan, flags: Flags, template: str | None, offers: list[str]
    ) -> None:
        self._folder = tempfile.mkdtemp(prefix="dockyard-")
        socket = str(Path(self._folder) / "llama.sock")
        key = secrets.token_urlsafe(32)
        self._door = Door(socket, key, files.reference)
        self._reference = files.reference
        command = _command(str(plan.details["native"]), files, plan, flags, offers)
        command += ["--host", socket]
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
                "LLAMA_API_KEY": key,
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
        self.version = f"{plan.details['native']} {self._door.props().get('build_info', '')}".rstrip()

    def stream(self, kind: str, body: bytes, receive: Callable[[str | bytes], bool]) -> None:
        """Run a request; ``receive`` gets each event's JSON. Hanging up, as True from it does, frees the slot."""
        self._door.stream(_ROUTES[kind], body, receive)

    def ask(self, route: str, body: bytes) -> bytes:
        """The whole reply of one of the server's other routes."""
        return self._door.ask(route, body)

    def able(self) -> frozenset[str]:
        """Which media the model takes: "vision", "audio"."""
        return self._door.able()

    def close(self) -> None:
        self._serving = False
        self._process.kill()
        self._process.wait()
        self._log.join(1.0)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_ready(self) -> None:
        """Until it says it is healthy; how long that may take is the gateway's to decide."""
        while self._process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self._door.get("/health")[0] == 200:
                    return
            time.sleep(0.02)
        self._log.join(1.0)
        raise LoadFailed(f"llama-server can't load {self._reference}: exit {self._process.returncode}; {self._last}")

    def _copy_log(self) -> None:
        """Into the worker's own log, which is kept short. If it ends by itself, so must the worker: it has no model."""
        for line in self._process.stdout or ():
            os.write(2, line)
            self._last = line.decode("utf-8", "replace").strip() or self._last
        if self._serving:
            os.write(2, f"llama-server ended by itself: {self._process.wait()}\n".encode())
            os._exit(1)


def _command(program: str, files: ModelFiles, plan: LoadPlan, flags: Flags, offers: list[str]) -> list[str]:
    command = [program, "-m", files.weights[0], "-c", str(plan.details["pool"]), "-np", str(plan.parallel)]
    command += ["--kv-unified", "--kv-unified-per-slot", str(plan.context)]
    command += ["-b", str(plan.details["batch"]), "-ub", str(plan.details["ubatch"])]
    command += ["-t", str(plan.threads), "-tb", str(flags.threads_batch or plan.threads)]
    command += ["--threads-http", str(plan.parallel + 2)]
    command += ["-ctk", flags.cache_type_k, "-ctv", flags.cache_type_v]
    command += ["-cram", str(int(plan.details["prompt_cache"]) >> 20)]
    command += ["-ctxcp", "4" if flags.prompt_cache else "0", "-fit", "off", "-lv", "1", "--no-ui", "--no-slots"]
    command += ["--jinja", "--offline"]
    if plan.details["mode"] != "generate":
        command += ["--embeddings"]
    if plan.details["pooling"]:
        command += ["--pooling", str(plan.details["pooling"])]
    command += _settings(flags)
    if "draft" in plan.details:
        command += ["--spec-draft-model", str(plan.details["draft"])]
        if flags.spec_type is None:
            command += ["--spec-type", "draft-simple"]
    if files.projector is not None:
        command += ["--mmproj", files.projector]
    adapters = [(path, 1.0) for path in files.adapters] + [(path, 0.0) for path in offers]
    if adapters:
        command += ["--lora-scaled", ",".join(f"{path}:{scale}" for path, scale in adapters)]
    return command


_VALUES = (
    "flash_attn", "load_mode", "numa", "cache_reuse", "slot_prompt_similarity", "rope_scaling", "yarn_orig_ctx",
    "yarn_ext_factor", "yarn_attn_factor", "yarn_beta_slow", "yarn_beta_fast", "image_min_tokens", "image_max_tokens",
    "spec_type", "spec_draft_n_max", "spec_draft_n_min", "spec_draft_p_min", "gpu_layers", "n_cpu_moe", "main_gpu",
    "split_mode", "tensor_split",
)  # fmt: skip
"""Flags that llama-server has under the same name."""


def _settings(flags: Flags) -> list[str]:
    found: list[str] = []
    for name in _VALUES:
        value = getattr(flags, name)
        if value is not None:
            found += [f"--{name.replace('_', '-')}", str(value)]
    for name in ("rope_freq_base", "rope_freq_scale"):
        if getattr(flags, name):
            found += [f"--{name.replace('_', '-')}", str(getattr(flags, name))]
    if flags.swa_full:
        found.append("--swa-full")
    if not flags.warmup:
        found.append("--no-warmup")
    if flags.kv_offload is not None:
        found.append("--kv-offload" if flags.kv_offload else "--no-kv-offload")
    return found + _ngrams(flags)


def _ngrams(flags: Flags) -> list[str]:
    kind = (flags.spec_type or "").removeprefix("ngram-")
    size, guess = ("n-match", "n-max") if kind == "mod" else ("size-n", "size-m")
    found: list[str] = []
    for value, name in (
        (flags.spec_ngram_size_n, size), (flags.spec_ngram_size_m, guess), (flags.spec_ngram_min_hits, "min-hits"),
    ):  # fmt: skip
        if value is not None:
            found += [f"--spec-ngram-{kind}-{name}", str(value)]
    return found
