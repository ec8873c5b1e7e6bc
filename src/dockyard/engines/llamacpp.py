"""GGUF models on llama.cpp: the one in the ``xllamacpp`` wheel, or a native ``llama-server`` where there is one.

Both speak the same JSON, so that request, answer and plan are shared; only the way it travels differs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import msgspec

from dockyard.engines import Emit, LoadPlan
from dockyard.engines._llama_answer import Answer
from dockyard.engines._llama_native import Native, find
from dockyard.engines._llama_plan import BATCH, Flags, read_flags, shape
from dockyard.engines._llama_pool import Pool, Share
from dockyard.engines._llama_request import body
from dockyard.engines._process import resident, tell
from dockyard.errors import EngineError, EngineUnavailable, InvalidRequest, LoadFailed, UnsupportedParameter
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import Format, Kind, LoadOptions, ModelFiles, Request

MARGIN = 4
"""Tokens that each slot may still add, beside two batches of prompt, before a request that yields is really gone."""


class Driver(Protocol):
    """A loaded model: runs requests in llama.cpp's own JSON, several at once. ``version`` names it for the log."""

    version: str

    def stream(self, kind: str, body: bytes, receive: Callable[[str | bytes], bool]) -> None: ...

    def close(self) -> None: ...


class LlamaCpp:
    """Continuous batching over a shared KV pool; see ``_llama_plan`` for its size."""

    name = "llamacpp"
    serves: frozenset[Kind] = frozenset({"chat", "complete"})
    formats: frozenset[Format] = frozenset({"gguf"})
    isolated = True
    extra = ""

    def __init__(self) -> None:
        self._driver: Driver | None = None
        self._parallel = 1
        self._tools = True
        self._pool = Pool(None)
        self._reference = ""

    def refuses(self, files: ModelFiles, hardware: Hardware) -> str | None:  # noqa: ARG002
        if any(not Path(path).is_file() for path in files.weights):
            return "weight files are missing"
        if files.facts.architecture in ("clip", "mmproj"):
            return "this file is a vision projector, not a language model"
        return None

    def plan(self, files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware) -> LoadPlan:
        flags = read_flags(options.flags)
        native = None if flags.native is False else find(settings)
        if native is None and flags.native:
            raise InvalidRequest("flag native: no llama-server is on the path or in settings", param="flags.native")
        if native is None and find_spec("xllamacpp") is None:
            raise EngineUnavailable("neither xllamacpp nor a llama-server is there", hint="pip install xllamacpp")
        if native is None and flags.gpu_layers:
            raise InvalidRequest("flag gpu_layers: only a native llama-server has it", param="flags.gpu_layers")
        found = shape(files, options, settings, hardware, flags)
        return LoadPlan(
            engine=self.name,
            context=found.context,
            parallel=found.parallel,
            threads=options.threads or settings.threads or hardware.cores,
            predicted=found.memory,
            details={"pool": found.pool, "native": native or "", "flags": msgspec.to_builtins(flags)},
        )

    def ahead(self) -> None:
        from dockyard.engines._llama_embedded import library

        library()

    def load(self, files: ModelFiles, plan: LoadPlan) -> LoadPlan:
        begun = time.monotonic()
        flags = msgspec.convert(plan.details["flags"], Flags)
        template = _template(files)
        self._reference = files.reference
        if plan.details["native"]:
            self._driver = Native(files, plan, flags, template)
        else:
            from dockyard.engines._llama_embedded import Embedded

            self._driver = Embedded(files, plan, flags, template)
        self._parallel = plan.parallel
        pool = int(plan.details["pool"])
        crowded = pool < plan.context * plan.parallel
        self._pool = Pool(pool - MARGIN * plan.parallel - min(2 * BATCH, pool // 8) if crowded else None)
        self._tools = "tools" in (template or files.facts.chat_template or "tools")
        tell(_loaded(files.reference, self._driver.version, plan, time.monotonic() - begun))
        return plan

    def generate(self, request: Request, emit: Emit) -> None:
        if self._driver is None:
            raise EngineError("no model is loaded")
        if request.kind not in self.serves:
            raise InvalidRequest(f"the llamacpp engine does not serve {request.kind!r}")
        if request.extra.get("tools") and not self._tools:
            raise UnsupportedParameter(
                "this model's chat template has no place for tools; llama.cpp would silently ignore them",
                param="tools",
                hint="leave `tools` out, or use a model that was trained on them",
            )
        self._run(self._driver, request, emit)

    def _run(self, driver: Driver, request: Request, emit: Emit) -> None:
        kind = "chat" if request.messages is not None else "complete"
        sent = body(request, self._parallel)
        share: Share | None = self._pool.share()
        while share is not None:
            answer = Answer(emit, request.sampling.logprobs, share)
            try:
                driver.stream(kind, sent, answer)
            finally:
                share.release()
            if not (answer.yielded and answer.silent):
                answer.finish()
                return
            share = self._pool.claim(share.prompt_tokens, emit)

    def close(self) -> None:
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.close()
            tell(f"{self._reference} unloaded")


def _loaded(reference: str, version: str, plan: LoadPlan, seconds: float) -> str:
    return (
        f"{reference} loaded by llamacpp in {seconds:.1f} s: {version}, "
        f"context {plan.context}, parallel {plan.parallel}, KV cache of {plan.details['pool']} tokens, "
        f"threads {plan.threads}, memory {plan.predicted.total >> 20} MiB predicted, "
        f"{resident(os.getpid()) >> 20} MiB measured"
    )


def _template(files: ModelFiles) -> str | None:
    """The artifact's own chat template, given as text or as a file's path; None leaves it to the GGUF."""
    template = files.chat_template
    if template is None or "\n" in template or "{" in template or not Path(template).is_absolute():
        return template
    try:
        return Path(template).read_text(encoding="utf-8")
    except OSError as error:
        raise LoadFailed(f"the chat template of {files.reference} can't be read: {error}") from error


PLUGIN = LlamaCpp
