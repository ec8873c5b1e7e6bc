"""Models in safetensors on vLLM, which lives in an environment of its own and is driven over HTTP.

vLLM pins its own torch and transformers, so it is never installed beside Dockyard: the setting ``vllm`` names the
environment. The worker begins vLLM's server, keeps it to itself, and takes it along when it ends.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from dockyard.engines import Emit, LoadPlan, _upstream_wire
from dockyard.engines._process import resident, tell
from dockyard.engines._upstream_errors import Refusal
from dockyard.engines._vllm_plan import (
    DEFAULT_PARALLEL,
    adaptable,
    adapters,
    context_of,
    dtype,
    find,
    memory,
    read_flags,
)
from dockyard.engines._vllm_server import MODEL, Server
from dockyard.errors import EngineError, InvalidRequest, UnsupportedParameter
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import Chunk, Format, Json, Kind, LoadOptions, ModelFiles, Request, Result, Usage

RUNNERS = {"generate": "generate", "embed": "pooling", "rerank": "pooling"}
ACCEPTS = frozenset(
    {"add_generation_prompt", "add_special_tokens", "allowed_token_ids", "bad_words", "chat_template_kwargs",
     "continue_final_message", "dimensions", "length_penalty", "min_tokens", "parallel_tool_calls", "reasoning_effort",
     "repetition_detection", "response_format", "skip_special_tokens", "structured_outputs", "tool_choice", "tools"}
)  # fmt: skip
"""Fields of ``Request.extra`` that reach vLLM; none touches files or the machine."""


class Vllm:
    """Continuous batching over a paged KV cache; ``parallel`` requests decode together."""

    name = "vllm"
    serves: frozenset[Kind] = frozenset({"chat", "complete", "embed", "rerank", "tokenize", "detokenize"})
    formats: frozenset[Format] = frozenset({"safetensors"})
    isolated = True
    extra = ""

    def __init__(self) -> None:
        self._server: Server | None = None
        self._reference = ""
        self._always = MODEL

    def refuses(self, files: ModelFiles, hardware: Hardware) -> str | None:  # noqa: ARG002
        if not (Path(files.directory) / "config.json").is_file():
            return "there is no config.json beside the weights"
        if not set(files.facts.capabilities) & {"chat", "complete", "embed", "rerank"}:
            return f"it can {', '.join(files.facts.capabilities) or 'do nothing that vLLM serves'}"
        return None

    def plan(self, files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware) -> LoadPlan:
        flags = read_flags(options.flags)
        python = find(settings)
        adaptable(adapters(files))  # raises on what vLLM can't apply
        context = context_of(files, options, settings)
        parallel = options.parallel or settings.parallel or DEFAULT_PARALLEL
        asked = options.threads or settings.threads
        return LoadPlan(
            engine=self.name,
            context=context,
            parallel=parallel,
            threads=asked or hardware.cores,
            predicted=memory(files, context, parallel, flags, hardware),
            details={
                "python": python,
                "runner": RUNNERS[options.mode],
                "threads": bool(asked),
                "dtype": dtype(flags, hardware),
                "flags": msgspec.to_builtins(flags),
            },
        )

    def load(self, files: ModelFiles, plan: LoadPlan) -> LoadPlan:
        begun = time.monotonic()
        self._reference = files.reference
        self._always = "always-0" if files.adapters else MODEL
        self._server = Server(files, plan, read_flags(plan.details["flags"]))
        tell(
            f"{files.reference} loaded by vllm in {time.monotonic() - begun:.1f} s: {self._server.version}, "
            f"context {plan.context}, parallel {plan.parallel}, memory {plan.predicted.total >> 20} MiB predicted, "
            f"{resident(os.getpid()) >> 20} MiB measured"
        )
        return plan

    def generate(self, request: Request, emit: Emit) -> None:
        if self._server is None:
            raise EngineError("no model is loaded")
        if request.kind not in self.serves:
            raise InvalidRequest(f"the vllm engine does not serve {request.kind!r}")
        for name in request.extra:
            if name not in ACCEPTS:
                raise UnsupportedParameter(f"the vllm engine does not take {name!r}", param=name)
        model = self._always
        if request.adapter is not None:
            if request.adapter.scale != 1.0:
                raise InvalidRequest("vLLM applies an adapter as it is, at no other scale", param="model")
            model = request.adapter.name
        if request.kind in ("chat", "complete"):
            self._stream(self._server, request, model, emit)
        elif request.kind in ("embed", "rerank"):
            _upstream_wire.checked(request)
            path = f"/v1{_upstream_wire.PATHS[request.kind]}"
            reply = self._server.ask(path, _upstream_wire.body(request, model, strict=False))
            emit(_upstream_wire.whole(request, reply, "vLLM"))
        else:
            emit(_tokens(self._server, request, model))

    def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
            tell(f"{self._reference} unloaded")

    def _stream(self, server: Server, request: Request, model: str, emit: Emit) -> None:
        _upstream_wire.checked(request)
        answer = _upstream_wire.Answer(Refusal("vLLM"))
        body = _upstream_wire.body(request, model, strict=False)
        path = f"/v1{_upstream_wire.PATHS[request.kind]}"
        for data in server.stream(path, body, lambda: emit(None)):
            for chunk in answer.take(data):
                if emit(chunk):
                    return
        if not emit(None):
            emit(answer.finish())


def _tokens(server: Server, request: Request, model: str) -> Chunk:
    """Token ids of a text or conversation, or the text of ids."""
    fields: dict[str, Json] = {"model": model, **request.extra}
    if request.kind == "detokenize":
        found = msgspec.json.decode(server.ask("/detokenize", {"model": model, "tokens": request.prompt}))
        return Chunk(found["prompt"], finish="stop", usage=Usage())
    if request.messages is not None:
        fields["messages"] = msgspec.to_builtins(request.messages)
    else:
        fields["prompt"] = request.prompt
    ids = tuple(msgspec.json.decode(server.ask("/tokenize", fields))["tokens"])
    return Chunk(finish="stop", usage=Usage(prompt_tokens=len(ids)), result=Result(tokens=ids))


PLUGIN = Vllm
