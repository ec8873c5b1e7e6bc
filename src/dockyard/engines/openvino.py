"""OpenVINO GenAI: the engine for many requests at once on CPUs, from OpenVINO IR and from GGUF, which becomes IR once.

One thread makes the scheduler step (``_openvino_pump``); paged KV cache, prefix cache and batching are GenAI's.
"""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from dockyard.engines import Emit, LoadPlan, _openvino_sight
from dockyard.engines._openvino_answer import Choice, Job
from dockyard.engines._openvino_plan import Flags, draft, read_flags, refusal, shape, vision
from dockyard.engines._openvino_sight import Sight
from dockyard.engines._process import resident, tell
from dockyard.engines._template import own_template
from dockyard.errors import EngineError, EngineUnavailable, InvalidRequest
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import Adapter, Chunk, Format, Kind, LoadOptions, ModelFiles, Request, Result, Usage

INSTALL = "pip install 'dockyard[openvino]'"

SMALL = 1_000_000_000
"""Weights of a model up to which more bytes a weight may be worth their memory."""


class OpenVinoGenAI:
    """Continuous batching over a paged KV cache; see ``_openvino_plan`` for its size."""

    name = "openvino"
    serves: frozenset[Kind] = frozenset({"chat", "complete", "template", "tokenize", "detokenize"})
    formats: frozenset[Format] = frozenset({"gguf", "openvino"})
    isolated = True
    extra = "openvino"

    def __init__(self) -> None:
        self._pump: Any = None
        self._maker: Any = None
        self._prompter: Any = None
        self._vocabulary: Any = None
        self._base: Any = None
        self._context = 0
        self._guesses = (0, 0)
        self._parallel = 1
        self._reference = ""
        self._sees = False
        self._image_tokens = 0

    def refuses(self, files: ModelFiles, hardware: Hardware) -> str | None:  # noqa: ARG002
        if find_spec("openvino_genai") is None:
            return f"openvino-genai is not installed: {INSTALL}"
        return refusal(files)

    def plan(self, files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware) -> LoadPlan:
        if options.mode != "generate":
            raise InvalidRequest(f"the openvino engine does not load models to {options.mode}", param="mode")
        flags = read_flags(options.flags)
        if flags.weights != "file" and files.format != "gguf":
            raise InvalidRequest("flag weights: only for GGUF files, which are converted", param="flags.weights")
        if vision(files) and (flags.prompt_lookup or flags.draft or flags.adapters):
            raise InvalidRequest("flags prompt_lookup, draft, adapters: not for a model that sees", param="flags")
        if files.offers and not flags.prompt_lookup:
            flags = msgspec.structs.replace(flags, adapters=True)
        found = shape(files, options, settings, hardware, flags)
        memory, small = found.memory, None
        if flags.draft is not None:
            small, more = draft(files, flags, settings, found)
            memory = msgspec.structs.replace(
                memory, weights=memory.weights + more.weights, kv_cache=memory.kv_cache + more.kv_cache
            )
        return LoadPlan(
            engine=self.name,
            context=found.context,
            parallel=found.parallel,
            threads=options.threads or settings.threads or hardware.cores,
            predicted=memory,
            details={
                "pool": found.pool,
                "step": found.step,
                "cache": str(settings.home_path / "cache" / "openvino"),
                "flags": msgspec.to_builtins(flags),
                **({} if small is None else {"draft": msgspec.to_builtins(small)}),
            },
        )

    def knobs(self, files: ModelFiles, hardware: Hardware) -> dict[str, dict[str, LoadOptions]]:  # noqa: ARG002
        """What a measurement should vary. Weights and activations are chosen together: which of the one is fastest
        depends on the other."""
        small = files.format == "gguf" and (files.facts.parameters or SMALL) < SMALL
        kinds = ("file", "int8", "half") if small else ("file",)
        pairs = [(kind, how) for kind in kinds for how in ("auto", "q8") if (kind, how) != ("half", "q8")]
        values: dict[str, tuple[str | int, ...]] = {"kv_precision": ("u8", "f16"), "prompt_lookup": (0, 4)}
        return {
            "weights, precision": {
                f"{kind}, {how}": LoadOptions(flags={"openvino.weights": kind, "openvino.precision": how})
                for kind, how in pairs
            },
            **{
                flag: {str(value): LoadOptions(flags={f"openvino.{flag}": value}) for value in choices}
                for flag, choices in values.items()
            },
        }

    def ahead(self) -> None:
        _library()

    def load(self, files: ModelFiles, plan: LoadPlan) -> LoadPlan:
        begun = time.monotonic()
        library = _library()
        from dockyard.engines._openvino_convert import cached
        from dockyard.engines._openvino_pipelines import Maker
        from dockyard.engines._openvino_prefix import Prefixes
        from dockyard.engines._openvino_pump import Pump
        from dockyard.engines._openvino_request import Prompter
        from dockyard.engines._openvino_text import Vocabulary

        flags = msgspec.convert(plan.details["flags"], Flags)

        def folder_of(model: ModelFiles) -> Path:
            if model.format == "gguf":
                return cached(model, Path(plan.details["cache"]), flags.weights)
            return Path(model.weights[0]).parent

        folder = folder_of(files)
        small = plan.details.get("draft")
        drafting = None if small is None else folder_of(msgspec.convert(small, ModelFiles))
        self._guesses = (flags.prompt_lookup, 3) if drafting is None else (flags.draft_tokens, 0)
        always = [Adapter(name=path, path=path, digest=path) for path in files.adapters]
        self._maker = Maker(folder, plan, flags, always, drafting)
        self._pump = Pump(self._maker, Prefixes(self._maker.prefix_blocks))
        pipeline = self._maker.use("")
        tokenizer = pipeline.get_tokenizer()
        self._base = pipeline.get_config() if (folder / "generation_config.json").is_file() else None
        self._vocabulary = Vocabulary(tokenizer)
        self._prompter = Prompter(tokenizer, own_template(files), plan.context)
        self._context, self._parallel, self._reference = plan.context, plan.parallel, files.reference
        self._sees = _openvino_sight.sees(folder)
        self._image_tokens = _openvino_sight.tokens_of_an_image(folder) if self._sees else 0
        tell(_loaded(files.reference, library.__version__, plan, time.monotonic() - begun))
        return plan

    def generate(self, request: Request, emit: Emit) -> None:
        if self._pump is None:
            raise EngineError("no model is loaded")
        if request.kind not in self.serves:
            raise InvalidRequest(f"the openvino engine does not serve {request.kind!r}")
        if request.kind in ("template", "tokenize", "detokenize"):
            emit(self._told(request))
            return
        sight = self._look(request) if self._sees else None
        ids = self._prompter.tokens(request) if sight is None else self._prompter.joined(sight.pieces)
        self._prompter.check(ids, len(self._vocabulary.raw), more=sight.tokens if sight is not None else 0)
        self._run(request, ids, emit, sight)

    def _look(self, request: Request) -> Sight:
        """What a model that sees is given of a request: it makes embeddings of the text itself."""
        images: list[Any] = []
        if request.messages is not None:
            messages, images = _openvino_sight.look(request.messages)
            request = msgspec.structs.replace(request, messages=messages)
        text = self._prompter.text(request, self._vocabulary)
        return Sight(text, tuple(images), len(images) * self._image_tokens)

    def _run(self, request: Request, ids: list[int], emit: Emit, sight: Sight | None) -> None:
        from dockyard.engines._openvino_request import configs, parser

        sampling = request.sampling
        if sampling.n > self._parallel:
            raise InvalidRequest(
                f"n={sampling.n} is more than the {self._parallel} requests this model decodes together", param="n"
            )
        room = self._context - len(ids) - (sight.tokens if sight is not None else 0)
        made = configs(request, self._base, room, self._vocabulary.ends, self._prompter.template, self._guesses)
        job = Job(ids, emit, self._adapter(request.adapter), counting=request.counting, sight=sight)
        job.choices = [Choice(job, index, config, self._vocabulary, sampling) for index, config in enumerate(made)]
        begun = self._vocabulary.text(ids[-8:])
        for choice in job.choices:
            choice.parsed = parser(request, begun, self._prompter.template)
        self._pump.run(job)

    def _adapter(self, adapter: Adapter | None) -> str:
        if adapter is None:
            return ""
        key = f"{adapter.name} {adapter.digest} {adapter.scale}"
        self._maker.know(key, adapter)
        return key

    def _told(self, request: Request) -> Chunk:
        """The kinds that need no network."""
        from dockyard.engines._openvino_request import ACCEPTS, TOKENIZE, refuse_unknown

        refuse_unknown(request, TOKENIZE if request.kind == "tokenize" else ACCEPTS)
        if request.kind == "template":
            text = self._prompter.render(request)
            return Chunk(text, finish="stop", usage=Usage())
        if request.kind == "tokenize":
            special = request.extra.get("add_special_tokens") is not False
            ids = self._prompter.tokens(request, special=special)
            return Chunk(finish="stop", usage=Usage(prompt_tokens=len(ids)), result=Result(tokens=tuple(ids)))
        ids = list(request.prompt) if isinstance(request.prompt, list) else []
        if wrong := next((token for token in ids if not 0 <= token < len(self._vocabulary.raw)), None):
            raise InvalidRequest(f"{wrong} is not a token of this model", param="prompt")
        text = self._vocabulary.text(ids)
        return Chunk(text, finish="stop", usage=Usage(prompt_tokens=len(ids)))

    def close(self) -> None:
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.close()
            self._maker.renew()
            tell(f"{self._reference} unloaded")


def _library() -> Any:
    try:
        import openvino_genai
    except ImportError as error:
        raise EngineUnavailable(f"openvino-genai can't be imported: {error}", hint=INSTALL) from error
    return openvino_genai


def _loaded(reference: str, version: str, plan: LoadPlan, seconds: float) -> str:
    return (
        f"{reference} loaded by OpenVINO GenAI {version} in {seconds:.1f} s: context {plan.context}, "
        f"parallel {plan.parallel}, KV cache of {plan.details['pool']} blocks, threads {plan.threads}, "
        f"memory {plan.predicted.total >> 20} MiB predicted, {resident(os.getpid()) >> 20} MiB measured"
    )


PLUGIN = OpenVinoGenAI
