"""Drives the llama.cpp that the ``xllamacpp`` wheel carries, inside this process."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dockyard.engines import LoadPlan
from dockyard.engines._llama_plan import BATCH, SPIN, Flags
from dockyard.errors import EngineUnavailable, InvalidRequest, LoadFailed
from dockyard.types import ModelFiles

_ROUTES = {"chat": "handle_chat_completions", "complete": "handle_completions"}


def library() -> Any:
    """The module ``xllamacpp``; its threads read how long to spin when it is first imported."""
    for name, value in SPIN.items():
        os.environ.setdefault(name, value)
    try:
        import xllamacpp
    except ImportError as error:
        raise EngineUnavailable(f"xllamacpp can't be imported: {error}", hint="pip install xllamacpp") from error
    return xllamacpp


class Embedded:
    """One loaded model. ``stream`` may be called from several threads at once."""

    def __init__(self, files: ModelFiles, plan: LoadPlan, flags: Flags, template: str | None) -> None:
        for name, value in SPIN.items():
            os.environ.setdefault(name, value)
        try:
            import xllamacpp
        except ImportError as error:
            raise EngineUnavailable(f"xllamacpp can't be imported: {error}", hint=remedy(error)) from error
        self.version = f"xllamacpp {xllamacpp.__version__}"
        params = _params(xllamacpp, files, plan, flags)
        if template is not None:
            params.chat_template = template
        # llama.cpp insists on listening somewhere. A socket that nobody can reach, then gone, is a closed door.
        with tempfile.TemporaryDirectory(prefix="dockyard-") as folder:
            params.hostnames = [str(Path(folder) / "closed.sock")]
            params.api_keys = [secrets.token_urlsafe(32)]
            try:
                self._server: Any = xllamacpp.Server(params)
            except RuntimeError as error:
                raise LoadFailed(f"llama.cpp can't load {files.reference}: {error}") from error

    def stream(self, kind: str, body: bytes, receive: Callable[[str | bytes], bool]) -> None:
        """Run a request; ``receive`` gets each event's JSON, and True from it cancels at once."""
        try:
            getattr(self._server, _ROUTES[kind])(body, receive)
        except RuntimeError as error:
            # Templates and schemas that llama.cpp chokes on come as plain exceptions, before anything is decoded.
            raise InvalidRequest(f"llama.cpp: {error}") from error

    def close(self) -> None:
        self._server = None


def remedy(error: ImportError) -> str:
    """What to install: the system's OpenMP library where that is what the wheel lacks, else the wheel."""
    if "libgomp" in str(error):
        return (
            "install the system's OpenMP: `apt install libgomp1` on Debian and Ubuntu, `dnf install libgomp` on Fedora"
        )
    return "pip install xllamacpp"


def _params(library: Any, files: ModelFiles, plan: LoadPlan, flags: Flags) -> Any:
    params = library.CommonParams()
    params.model.path = files.weights[0]
    params.n_ctx = int(plan.details["pool"])
    params.n_parallel = plan.parallel
    params.kv_unified = True
    params.kv_unified_per_slot = plan.context
    params.n_batch = params.n_ubatch = BATCH
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = plan.threads
    for name in ("cache_type_k", "cache_type_v"):
        setattr(params, name, getattr(library.ggml_type, f"GGML_TYPE_{getattr(flags, name).upper()}"))
    params.cache_ram_mib = flags.prompt_cache >> 20
    params.n_ctx_checkpoints = 0 if not flags.prompt_cache else 4
    params.rope_freq_base = flags.rope_freq_base
    params.rope_freq_scale = flags.rope_freq_scale
    params.fit_params = False
    params.n_threads_http = 1
    params.ui = False
    params.endpoint_slots = params.endpoint_props = params.endpoint_metrics = False
    params.verbosity = 1
    params.use_jinja = True
    if files.projector is not None:
        params.mmproj.path = files.projector
    if files.adapters:
        params.lora_adapters = [_adapter(library, path) for path in files.adapters]
    return params


def _adapter(library: Any, path: str) -> Any:
    adapter = library.CommonAdapterLoraInfo()
    adapter.path = path
    adapter.scale = 1.0
    return adapter
