"""Embedding models and cross-encoders in ONNX or OpenVINO IR: texts to vectors, queries and documents to scores.

One network, many requests: their texts are spread over lanes and put together by length (``_encoder_batch``), except
where the network quantises by the batch's range: there each text goes alone, so that nobody's vector depends on who
else asked. A model that embeds also ranks, by the cosine of query and document.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from dockyard.engines import Emit, LoadPlan
from dockyard.engines._encoder_batch import MAX_BATCH, Item, Lanes
from dockyard.engines._encoder_plan import PARALLEL, Recipe, memory, read_flags, recipe, threads, window
from dockyard.engines._encoder_session import Session, open_session
from dockyard.engines._encoder_tokens import Side, Tokens
from dockyard.engines._encoder_vectors import Shape, feeds, pooled, shape_of, shortened
from dockyard.engines._process import resident, tell
from dockyard.errors import EngineError, InvalidRequest, LoadFailed, UnsupportedParameter
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import Chunk, Format, Json, Kind, LoadOptions, ModelFiles, Request, Result, Usage

MAX_LANES = 8
ACCEPTS: dict[Kind, frozenset[str]] = {
    "embed": frozenset({"dimensions", "input_type", "truncate"}),
    "rerank": frozenset({"max_tokens_per_doc", "truncate"}),
    "tokenize": frozenset({"add_special_tokens"}),
}
"""Fields of ``Request.extra``: ``dimensions`` keeps a vector's first so many values and normalises it again,
``input_type`` names one of the model's own prompts, ``truncate`` is true, false, "start", "end" or "none"."""

_SIDES: dict[Json, Side] = {True: "end", False: "none", "end": "end", "start": "start", "none": "none"}
_INPUT_TYPES = {"search_query": ("query",), "search_document": ("document", "passage"), "document": ("passage",)}
"""What callers say for the prompts that models have under other names."""


class Encoder:
    """``context`` is the window of one text, ``parallel`` the requests whose texts are put together."""

    name = "encoder"
    serves: frozenset[Kind] = frozenset({"embed", "rerank", "tokenize", "detokenize"})
    formats: frozenset[Format] = frozenset({"onnx", "openvino"})
    isolated = True
    extra = "encoder"

    def __init__(self) -> None:
        self._reference = ""
        self._recipe: Recipe | None = None
        self._session: Session | None = None
        self._lanes: Lanes | None = None
        self._tokens: Tokens | None = None
        self._shape: Shape = "vector"

    def refuses(self, files: ModelFiles, hardware: Hardware) -> str | None:  # noqa: ARG002
        found = set(files.facts.capabilities)
        if not found & {"embed", "rerank"}:
            what = f"it can {', '.join(sorted(found))}" if found else "its graph does not say what it is for"
            return f"no embedding model and no reranker: {what}"
        if any(not Path(path).is_file() for path in files.weights):
            return "weight files are missing"
        runtime = "openvino" if files.format == "openvino" else "onnxruntime"
        missing = [name for name in (runtime, "tokenizers") if find_spec(name) is None]
        return f"{' and '.join(missing)} not installed" if missing else None

    def plan(self, files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware) -> LoadPlan:
        made = recipe(files, read_flags(options.flags))
        context = window(files, options, settings)
        cores = threads(options, settings, hardware)
        lanes = min(cores, MAX_LANES)
        return LoadPlan(
            engine=self.name,
            context=context,
            parallel=options.parallel or settings.parallel or PARALLEL,
            threads=cores,
            predicted=memory(files, made, context, lanes),
            details={"recipe": msgspec.to_builtins(made), "lanes": lanes},
        )

    def load(self, files: ModelFiles, plan: LoadPlan) -> LoadPlan:
        begun = time.monotonic()
        self._reference = files.reference
        self._recipe = made = msgspec.convert(plan.details["recipe"], Recipe)
        self._tokens = Tokens(made.tokenizer, plan.context)
        lanes = int(plan.details["lanes"])
        self._session = open_session(Path(made.graph), lanes, plan.threads)
        batch = made.batch or (1 if self._session.mixes else MAX_BATCH)
        self._shape = self._probe(files)
        self._lanes = Lanes(lanes, batch, self._infer)
        tell(
            f"{files.reference} loaded by encoder in {time.monotonic() - begun:.1f} s: {self._session.version}, "
            f"{self._shape}, pooling {made.pooling}, window {plan.context}, {lanes} lanes, at most {batch} texts "
            f"together, memory {plan.predicted.total >> 20} MiB predicted, {resident(os.getpid()) >> 20} MiB measured"
        )
        return plan

    def generate(self, request: Request, emit: Emit) -> None:
        if self._lanes is None or self._tokens is None:
            raise EngineError("no model is loaded")
        for name in request.extra:
            if name not in ACCEPTS.get(request.kind, ()):
                raise UnsupportedParameter(f"the encoder engine does not take {name!r} to {request.kind}", param=name)
        if request.kind == "embed":
            self._embed(request, emit)
        elif request.kind == "rerank":
            self._rerank(request, emit)
        elif request.kind == "tokenize":
            self._tokenize(request, emit)
        elif request.kind == "detokenize" and isinstance(request.prompt, list):
            emit(Chunk(self._tokens.text(request.prompt), finish="stop", usage=Usage()))
        else:
            raise InvalidRequest(f"the encoder engine can't {request.kind} this")

    def close(self) -> None:
        lanes, self._lanes, self._session = self._lanes, None, None
        if lanes is not None:
            lanes.close()
            tell(f"{self._reference} unloaded")

    def _embed(self, request: Request, emit: Emit) -> None:
        if self._shape == "score":
            raise InvalidRequest(
                f"{self._reference} scores pairs of texts; it has no embeddings",
                param="model",
                hint="send it to rerank, or use an embedding model",
            )
        made = self._made()
        dimensions = request.extra.get("dimensions")
        prompt = _prompt(made.prompts, request.extra.get("input_type"))
        side = _side(request, made, "none")
        items, dropped = self._items(
            [prompt + text if isinstance(text, str) else text for text in request.inputs], side
        )
        found = self._run(items, emit)
        if found is None:
            return
        if dimensions is not None:
            found = shortened(found, dimensions)
        vectors = tuple(vector.tobytes() for vector in found)
        self._answer(emit, items, dropped, Result(vectors=vectors))

    def _rerank(self, request: Request, emit: Emit) -> None:
        made = self._made()
        if not request.query:
            raise InvalidRequest("the query is empty", param="query")
        side = _side(request, made, "end")
        most = request.extra.get("max_tokens_per_doc")
        if self._shape == "score":
            items, dropped = self._pairs(request.query, request.inputs, most, side)
            found = self._run(items, emit)
            if found is not None:
                self._answer(emit, items, dropped, Result(scores=tuple(float(score[0]) for score in found)))
            return
        if most is not None:
            raise UnsupportedParameter(
                "max_tokens_per_doc: this model embeds each document whole", param="max_tokens_per_doc"
            )
        query, document = _prompt(made.prompts, "query"), _prompt(made.prompts, "document")
        texts = [document + each if isinstance(each, str) else each for each in request.inputs]
        items, dropped = self._items([query + request.query, *texts], side)
        found = self._run(items, emit)
        if found is not None:
            first, *others = shortened(found, len(found[0]))
            self._answer(emit, items, dropped, Result(scores=tuple(float(first @ each) for each in others)))

    def _tokenize(self, request: Request, emit: Emit) -> None:
        if request.prompt is None:
            raise InvalidRequest("an encoder has no chat template: give text to tokenise", param="prompt")
        assert self._tokens is not None
        ids = self._tokens.ids(request.prompt, request.extra.get("add_special_tokens") is not False)
        emit(Chunk(finish="stop", usage=Usage(prompt_tokens=len(ids)), result=Result(tokens=tuple(ids))))

    def _pairs(self, query: str, texts: Sequence[str | list[int]], most: Json, side: Side) -> tuple[list[Item], int]:
        """Query and each document as token ids, and how many tokens were dropped."""
        assert self._tokens is not None
        items, dropped = [], 0
        for number, text in enumerate(texts):
            document, lost = (text if isinstance(text, str) else self._tokens.text(text)), 0
            if most is not None:
                document, lost = self._tokens.clipped(document, int(most))
            item, cut = self._tokens.pair(query, document, side, number)
            items.append(item)
            dropped += cut + lost
        return items, dropped

    def _items(self, texts: list[str | list[int]], side: Side) -> tuple[list[Item], int]:
        """Texts as token ids, and how many tokens were dropped."""
        assert self._tokens is not None
        for number, text in enumerate(texts):
            if not text:
                raise InvalidRequest(f"input {number} is empty", param="input")
        found = [self._tokens.single(text, side, number) for number, text in enumerate(texts)]
        return [item for item, _ in found], sum(cut for _, cut in found)

    def _run(self, items: list[Item], emit: Emit) -> list[Any] | None:
        assert self._lanes is not None
        return self._lanes.run(items, lambda: emit(None))

    def _answer(self, emit: Emit, items: list[Item], dropped: int, result: Result) -> None:
        usage = Usage(prompt_tokens=sum(len(item.ids) for item in items))
        emit(Chunk(finish="stop", usage=usage, truncated=dropped, result=result))

    def _infer(self, items: list[Item]) -> list[Any]:
        """What the lanes call: one vector or score for each."""
        session, made = self._session, self._recipe
        if session is None or made is None:
            raise EngineError("no model is loaded")
        fed = feeds(items)
        return pooled(session.run(fed), fed["attention_mask"], self._shape, made.pooling, made.normalize)

    def _probe(self, files: ModelFiles) -> Shape:
        """Run two texts of one token: what comes out tells what the network is for."""
        assert self._session is not None
        found = self._session.run(feeds([Item([0, 0], [0, 0])] * 2))
        shape = shape_of(found.shape, "rerank" in files.facts.capabilities)
        if shape is None:
            raise LoadFailed(
                f"{files.reference} gives {'×'.join(map(str, found.shape))} for 2 texts of 2 tokens: neither vectors "
                "nor scores"
            )
        return shape

    def _made(self) -> Recipe:
        if self._recipe is None:
            raise EngineError("no model is loaded")
        return self._recipe


def _side(request: Request, made: Recipe, default: Side) -> Side:
    asked = request.extra.get("truncate")
    if asked is None:
        return "end" if made.truncate else default
    key = asked.lower() if isinstance(asked, str) else asked
    if not isinstance(key, str | bool) or key not in _SIDES:
        raise InvalidRequest(f"truncate: {asked!r} is none of true, false, start, end and none", param="truncate")
    return _SIDES[key]


def _prompt(prompts: dict[str, str], kind: Json) -> str:
    """What this model wants in front of texts of that kind; nothing where it makes no difference."""
    if kind is None or not prompts:
        return ""
    if not isinstance(kind, str):
        raise InvalidRequest("input_type must be a string", param="input_type")
    names = (kind, *_INPUT_TYPES.get(kind, ()))
    found = [prompts[name] for name in names if name in prompts]
    return found[0] if found else ""


PLUGIN = Encoder
