"""Drives the llama.cpp that the ``xllamacpp`` wheel carries, inside this process."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dockyard.engines import LoadPlan
from dockyard.engines._llama_flags import Flags
from dockyard.engines._llama_http import Door
from dockyard.engines._llama_plan import SPIN
from dockyard.errors import EngineUnavailable, InvalidRequest, LoadFailed
from dockyard.types import Json, ModelFiles

_ROUTES = {"chat": "handle_chat_completions", "complete": "handle_completions"}


def library() -> Any:
    """The module ``xllamacpp``; its threads read how long to spin when it is first imported."""
    for name, value in SPIN.items():
        os.environ.setdefault(name, value)
    try:
        import xllamacpp
    except ImportError as error:
        raise EngineUnavailable(f"xllamacpp can't be imported: {error}", hint=remedy(error)) from error
    return xllamacpp


class Embedded:
    """One loaded model. ``stream`` may be called from several threads at once."""

    def __init__(
        self, files: ModelFiles, plan: LoadPlan, flags: Flags, template: str | None, offers: list[str]
    ) -> None:
        xllamacpp = library()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.version = f"xllamacpp {xllamacpp.__version__}"
        params = _params(xllamacpp, files, plan, flags, offers)
        if template is not None:
            params.chat_template = template
        # llama.cpp insists on listening somewhere, and what has no method in the wheel is asked there.
        folder = tempfile.TemporaryDirectory(prefix="dockyard-")
        self._door = Door(str(Path(folder.name) / "llama.sock"), secrets.token_urlsafe(32), files.reference)
        params.hostnames = [str(Path(folder.name) / "llama.sock")]
        params.api_keys = [self._door.key]
        try:
            self._server: Any = xllamacpp.Server(params)
            self._folder = None if self._door.hold() else folder
        except RuntimeError as error:
            raise LoadFailed(f"llama.cpp can't load {files.reference}: {error}") from error
        finally:
            if self._folder is None:
                folder.cleanup()

    def stream(self, kind: str, body: bytes, receive: Callable[[str | bytes], bool]) -> None:
        """Run a request; ``receive`` gets each event's JSON, and True from it cancels at once."""
        try:
            getattr(self._server, _ROUTES[kind])(body, receive)
        except (RuntimeError, ValueError) as error:
            # Templates and schemas that llama.cpp chokes on come as plain exceptions, before anything is decoded.
            raise InvalidRequest(f"llama.cpp: {error}") from error

    def ask(self, route: str, body: bytes) -> bytes:
        """The whole reply of one of the server's other routes."""
        return self._door.ask(route, body)

    def able(self) -> frozenset[str]:
        """Which media the model takes: "vision", "audio"."""
        return self._door.able()

    def close(self) -> None:
        self._server = None
        self._door.close()
        if self._folder is not None:
            self._folder.cleanup()


def remedy(error: ImportError) -> str:
    """What to install: the system's OpenMP library where that is what the wheel lacks, else the wheel."""
    if "libgomp" in str(error):
        return (
            "install the system's OpenMP: `apt install libgomp1` on Debian and Ubuntu, `dnf install libgomp` on Fedora"
        )
    return "pip install xllamacpp"


def _params(library: Any, files: ModelFiles, plan: LoadPlan, flags: Flags, offers: list[str]) -> Any:
    params = library.CommonParams()
    params.model.path = files.weights[0]
    params.n_ctx = int(plan.details["pool"])
    params.n_parallel = plan.parallel
    params.kv_unified = True
    params.kv_unified_per_slot = plan.context
    params.n_batch, params.n_ubatch = int(plan.details["batch"]), int(plan.details["ubatch"])
    params.cpuparams.n_threads = plan.threads
    params.cpuparams_batch.n_threads = flags.threads_batch or plan.threads
    params.fit_params = False
    params.n_threads_http = plan.parallel + 2
    params.ui = False
    params.endpoint_slots = params.endpoint_props = params.endpoint_metrics = False
    params.verbosity = 1
    params.use_jinja = True
    params.embedding = plan.details["mode"] != "generate"
    if plan.details["pooling"]:
        params.pooling_type = _enum(library.llama_pooling_type, str(plan.details["pooling"]))
    _set_flags(library, params, flags, int(plan.details["prompt_cache"]))
    if flags.spec_type is not None or flags.draft is not None:
        _set_speculation(library, params.speculative, flags, plan.details.get("draft"))
    if files.projector is not None:
        params.mmproj.path = files.projector
    adapters = [(path, 1.0) for path in files.adapters] + [(path, 0.0) for path in offers]
    if adapters:
        params.lora_adapters = [_adapter(library, path, scale) for path, scale in adapters]
    return params


def _set_flags(library: Any, params: Any, flags: Flags, prompt_cache: int) -> None:
    for name in ("cache_type_k", "cache_type_v"):
        setattr(params, name, getattr(library.ggml_type, f"GGML_TYPE_{getattr(flags, name).upper()}"))
    params.cache_ram_mib = prompt_cache >> 20
    params.n_ctx_checkpoints = 0 if not flags.prompt_cache else 4
    params.rope_freq_base = flags.rope_freq_base
    params.rope_freq_scale = flags.rope_freq_scale
    params.warmup = flags.warmup
    for ours, theirs in (
        ("swa_full", "swa_full"), ("cache_reuse", "n_cache_reuse"), ("yarn_orig_ctx", "yarn_orig_ctx"),
        ("slot_prompt_similarity", "slot_prompt_similarity"), ("yarn_ext_factor", "yarn_ext_factor"),
        ("yarn_attn_factor", "yarn_attn_factor"), ("yarn_beta_slow", "yarn_beta_slow"),
        ("yarn_beta_fast", "yarn_beta_fast"), ("image_min_tokens", "image_min_tokens"),
        ("image_max_tokens", "image_max_tokens"),
    ):  # fmt: skip
        if getattr(flags, ours) is not None:
            setattr(params, theirs, getattr(flags, ours))
    if flags.flash_attn is not None:
        word = {"on": "enabled", "off": "disabled"}.get(flags.flash_attn, flags.flash_attn)
        params.flash_attn_type = _enum(library.llama_flash_attn_type, word)
    if flags.load_mode is not None:
        params.load_mode = _enum(library.llama_load_mode, {"dio": "direct_io"}.get(flags.load_mode, flags.load_mode))
    if flags.numa is not None:
        params.numa = _enum(library.ggml_numa_strategy, flags.numa)
    if flags.rope_scaling is not None:
        params.rope_scaling_type = _enum(library.llama_rope_scaling_type, flags.rope_scaling)


def _set_speculation(library: Any, speculative: Any, flags: Flags, draft: Json) -> None:
    kind = flags.spec_type or "draft-simple"
    speculative.types = [_enum(library.common_speculative_type, kind)]
    if draft is not None:
        speculative.draft.mparams.path = draft
    for name in ("n_max", "n_min", "p_min"):
        value = getattr(flags, f"spec_draft_{name}")
        if value is not None:
            setattr(speculative.draft, name, value)
    if not kind.startswith("ngram-") or kind == "ngram-cache":
        return
    part = getattr(speculative, kind.replace("-", "_"))
    names = ("n_match", "n_max", "n_min") if kind == "ngram-mod" else ("size_n", "size_m", "min_hits")
    values = (flags.spec_ngram_size_n, flags.spec_ngram_size_m, flags.spec_ngram_min_hits)
    for name, value in zip(names, values, strict=True):
        if value is not None:
            setattr(part, name, value)


def _enum(kind: Any, word: str) -> Any:
    """The member whose name ends with a word as llama-server writes it."""
    ending = "_" + word.upper().replace("-", "_").replace("+", "_")
    return min((each for each in kind if each.name.endswith(ending)), key=lambda each: len(each.name))


def _adapter(library: Any, path: str, scale: float) -> Any:
    adapter = library.CommonAdapterLoraInfo()
    adapter.path = path
    adapter.scale = scale
    return adapter
