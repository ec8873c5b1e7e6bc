"""GGUF models on llama.cpp: the one in the ``xllamacpp`` wheel, or a native ``llama-server`` where there is one.

Both speak the same JSON, so that request, answer and plan are shared; only the way it travels differs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

import msgspec

from dockyard.engines import Emit, LoadPlan
from dockyard.engines import _llama_forced as forced
from dockyard.engines._llama_adapters import as_gguf
from dockyard.engines._llama_adapters import size as adapter_bytes
from dockyard.engines._llama_answer import Answer
from dockyard.engines._llama_chat import check_media, named
from dockyard.engines._llama_chatml import with_tools
from dockyard.engines._llama_flags import NATIVE_ONLY, Flags, read_flags
from dockyard.engines._llama_native import Native, find
from dockyard.engines._llama_plan import caveat, draft, pooling, shape
from dockyard.engines._llama_pool import Pool, Share
from dockyard.engines._llama_request import body, prompt_fields
from dockyard.engines._llama_tasks import Tasks
from dockyard.engines._process import resident, tell
from dockyard.engines._template import own_template
from dockyard.errors import EngineError, EngineUnavailable, InvalidRequest, UnsupportedParameter
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import Chunk, Format, Json, Kind, LoadOptions, Mode, ModelFiles, Request, Usage

MARGIN = 4
"""Tokens that each slot may still add, beside two batches of prompt, before a request that yields is really gone."""


class Driver(Protocol):
    """A loaded model: runs requests in llama.cpp's own JSON, several at once. ``version`` names it for the log."""

    version: str

    def stream(self, kind: str, body: bytes, receive: Callable[[str | bytes], bool]) -> None: ...

    def ask(self, route: str, body: bytes) -> bytes: ...

    def able(self) -> frozenset[str]: ...

    def close(self) -> None: ...


_EVERY_MODE = frozenset({"tokenize", "detokenize", "template"})
_MODES: dict[Kind, Mode] = {"embed": "embed", "rerank": "rerank"}


class LlamaCpp:
    """Continuous batching over a shared KV pool; see ``_llama_plan`` for its size."""

    name = "llamacpp"
    serves: frozenset[Kind] = frozenset({"chat", "complete", "embed", "rerank", "tokenize", "detokenize", "template"})
    formats: frozenset[Format] = frozenset({"gguf"})
    isolated = True
    extra = ""

    def __init__(self) -> None:
        self._driver: Driver | None = None
        self._parallel = 1
        self._tools = True
        self._pool = Pool(None)
        self._reference = ""
        self._tasks: Tasks | None = None
        self._mode: Mode = "generate"
        self._able: frozenset[str] = frozenset()
        self._names: list[str] = []
        self._always = 0
        self._forces = False

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
        if native is None and (wanted := [name for name in NATIVE_ONLY if getattr(flags, name)]):
            raise InvalidRequest(f"flag {wanted[0]}: only a native llama-server has it", param=f"flags.{wanted[0]}")
        if files.offers and flags.prompt_cache:
            raise InvalidRequest("flag prompt_cache: it mixes up adapters", param="flags.prompt_cache")
        found = shape(files, options, settings, hardware, flags)
        details: dict[str, Json] = {
            "pool": found.pool, "batch": found.batch, "ubatch": found.ubatch, "native": native or "",
            "prompt_cache": found.prompt_cache, "mode": options.mode, "pooling": pooling(files, options, flags),
            "flags": msgspec.to_builtins(flags),
        }  # fmt: skip
        memory = found.memory
        if flags.draft is not None:
            details["draft"], more = draft(files, flags.draft, settings, found)
            memory = msgspec.structs.replace(
                memory, weights=memory.weights + more.weights, kv_cache=memory.kv_cache + more.kv_cache
            )
        if files.offers:
            details["adapters"] = str(settings.home_path / "cache" / "adapters")
            memory = msgspec.structs.replace(memory, weights=memory.weights + adapter_bytes(files))
        return LoadPlan(
            engine=self.name,
            context=found.context,
            parallel=found.parallel,
            threads=options.threads or settings.threads or hardware.cores,
            predicted=memory,
            caveat=caveat(files, options),
            details=details,
        )

    def knobs(self, files: ModelFiles, hardware: Hardware) -> dict[str, dict[str, LoadOptions]]:  # noqa: ARG002
        """What a measurement should vary."""
        return {
            "KV cache": {
                kind: LoadOptions(flags={"llamacpp.cache_type_k": kind, "llamacpp.cache_type_v": kind})
                for kind in ("f16", "q8_0")
            },
            "speculation": {
                "none": LoadOptions(flags={"llamacpp.spec_type": None}),
                "ngram-simple": LoadOptions(flags={"llamacpp.spec_type": "ngram-simple"}),
            },
        }

    def ahead(self) -> None:
        from dockyard.engines._llama_embedded import library

        library()

    def load(self, files: ModelFiles, plan: LoadPlan) -> LoadPlan:
        begun = time.monotonic()
        flags = msgspec.convert(plan.details["flags"], Flags)
        template = own_template(files)
        taught = with_tools(template or files.facts.chat_template)
        template = taught or template
        self._forces = forced.fits(template or files.facts.chat_template)
        self._tools = "tools" in (template or files.facts.chat_template or "tools")
        self._reference = files.reference
        self._mode = cast("Mode", plan.details["mode"])
        self._names = [each.digest for each in files.offers]
        self._always = len(files.adapters)
        offers = [as_gguf(each, files, Path(str(plan.details.get("adapters", "")))) for each in files.offers]
        if plan.details["native"]:
            self._driver = Native(files, plan, flags, template, offers)
        else:
            from dockyard.engines._llama_embedded import Embedded

            self._driver = Embedded(files, plan, flags, template, offers)
        self._tasks = Tasks(self._driver.ask, plan.context, plan.parallel)
        if files.projector is not None:
            self._able = self._driver.able()
        self._parallel = plan.parallel
        pool = int(plan.details["pool"])
        crowded = pool < plan.context * plan.parallel
        room = min(2 * int(plan.details["batch"]), pool // 8)
        self._pool = Pool(pool - MARGIN * plan.parallel - room if crowded else None)
        tell(_loaded(files.reference, self._driver.version, plan, time.monotonic() - begun))
        if plan.caveat:
            tell(f"{files.reference}: {plan.caveat}")
        return plan

    def generate(self, request: Request, emit: Emit) -> None:
        if self._driver is None or self._tasks is None:
            raise EngineError("no model is loaded")
        if request.kind not in self.serves:
            raise InvalidRequest(f"the llamacpp engine does not serve {request.kind!r}")
        if request.kind in _EVERY_MODE:
            self._convert(self._tasks, request, emit)
            return
        if self._mode != _MODES.get(request.kind, "generate"):
            raise InvalidRequest(f"this model is loaded to {self._mode}; it can't {request.kind} meanwhile")
        if request.kind in ("embed", "rerank"):
            work = self._tasks.embed if request.kind == "embed" else self._tasks.rerank
            if (answer := work(request, emit)) is not None:
                emit(answer)
            return
        self._generate(self._driver, self._tasks, request, emit)

    def _convert(self, tasks: Tasks, request: Request, emit: Emit) -> None:
        if request.kind == "detokenize":
            emit(tasks.detokenize(request))
        elif request.kind == "template":
            emit(tasks.template(self._fields(request)))
        else:
            extra = {name: value for name, value in request.extra.items() if name != "add_special_tokens"}
            special = request.extra.get("add_special_tokens") is not False
            plain = msgspec.structs.replace(request, extra=extra)
            emit(tasks.tokenize(plain, self._fields(plain), special=special))

    def _fields(self, request: Request) -> dict[str, Json]:
        """What llama.cpp is told of the prompt, checked."""
        fields = prompt_fields(request)
        if fields.get("tools") and not self._tools:
            raise UnsupportedParameter(
                "this model's chat template has no place for tools; llama.cpp would silently ignore them",
                param="tools",
                hint="leave `tools` out, or use a model that was trained on them",
            )
        if request.messages is not None:
            check_media(request.messages, self._able)
        if (lora := self._lora(request)) is not None:
            fields["lora"] = lora
        return fields

    def _lora(self, request: Request) -> Json:
        """Every adapter with its scale: told nothing, llama.cpp would reuse what it cached under another adapter."""
        if not (self._names or self._always):
            return None
        chosen = request.adapter
        if chosen is not None and chosen.digest not in self._names:
            raise InvalidRequest(f"adapter {chosen.name!r} is not loaded with this model", param="model")
        scales = [1.0] * self._always + [
            chosen.scale if chosen is not None and chosen.digest == digest else 0.0 for digest in self._names
        ]
        return [{"id": number, "scale": scale} for number, scale in enumerate(scales)]

    def _generate(self, driver: Driver, tasks: Tasks, request: Request, emit: Emit) -> None:
        if request.adapter is not None and not self._names:
            raise InvalidRequest(f"adapter {request.adapter.name!r} is not loaded with this model", param="model")
        fields = self._fields(request)
        if request.messages is None:
            if request.suffix is not None:
                fields["prompt"] = tasks.infill(request.prompt or "", request.suffix)
            elif not request.prompt:
                raise InvalidRequest("the prompt is empty", param="prompt")
            else:
                fields["prompt"] = request.prompt
        if request.sampling.prompt_logprobs is not None and self._scored(tasks, request, dict(fields), emit):
            return
        kind = "chat" if request.messages is not None else "complete"
        if self._forces and kind == "chat" and forced.wanted(fields):
            name, fields = forced.begin(driver.ask, request, fields)
            kind, emit = "complete", forced.as_call(name, emit)
            request = msgspec.structs.replace(request, sampling=msgspec.structs.replace(request.sampling, stop=()))
        self._run(driver, kind, request, body(request, fields, self._parallel), emit)

    def _scored(self, tasks: Tasks, request: Request, fields: dict[str, Json], emit: Emit) -> bool:
        """Emit the log-probabilities of the prompt; True: that was all there is to do."""
        prompt = fields.get("prompt") or tasks.prompt(request, fields)
        ids = prompt if isinstance(prompt, list) else tasks.tokens(prompt)
        share = self._pool.claim(len(ids) + 1, emit)
        if share is None:
            return True
        try:
            sampling = request.sampling
            start = sampling.prompt_logprobs_from
            result = tasks.score(ids, sampling.prompt_logprobs or 0, start, fields.get("lora"), emit)
        finally:
            share.release()
        if result is None:
            return True
        if request.sampling.max_tokens != 0:
            return emit(Chunk(result=result))
        usage = Usage(prompt_tokens=len(ids))
        for index in range(request.sampling.n):
            last = index == request.sampling.n - 1
            emit(Chunk(index=index, finish="length", usage=usage if last else None, result=None if index else result))
        return True

    def _run(self, driver: Driver, kind: str, request: Request, sent: bytes, emit: Emit) -> None:
        share: Share | None = self._pool.share()
        while share is not None:
            answer = Answer(emit, request.sampling.logprobs, share, counting=request.counting)
            try:
                driver.stream(kind, sent, answer)
            except InvalidRequest as error:
                raise named(error, request.extra) from error
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


PLUGIN = LlamaCpp
