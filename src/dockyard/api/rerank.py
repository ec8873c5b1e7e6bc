"""Cohere's, Jina's and vLLM's ways to ask how well documents answer a query: rerank and score.

A cross-encoder gives a logit for each pair. ``relevance_score`` and ``score`` are its sigmoid, between 0 and 1, as in
these services; with ``use_activation`` false (vLLM's field) the logit itself.

- ``/v2/rerank``, ``/v1/rerank`` (Cohere) and ``/rerank`` take texts and Jina's objects; one answer fits all clients.
- ``/v1/score`` and ``/score`` are vLLM's: one text against each of many, or texts in pairs.
"""

from __future__ import annotations

import math
import time
import uuid
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dockyard.api import _openai
from dockyard.api._decode import BodyReader
from dockyard.api._endpoint import Endpoint, Style
from dockyard.api._further import Described, Routes
from dockyard.api._site import Site
from dockyard.api._wire import Hot, error_fields
from dockyard.errors import DockyardError, InvalidRequest, UnsupportedParameter
from dockyard.types import Call, Chunk, Json, Request, Usage

MOST_DOCUMENTS = 10_000
MOST_PAIRS = 1_000
"""Of two lists of texts: each pair is a request of its own."""

_encode = msgspec.json.encode

Name = Annotated[str, Meta(min_length=1, max_length=512, description="Name of a model that reranks, or `echo`.")]
Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=1, le=1 << 30)]


class RerankRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of a rerank. Documents are texts, or objects with a ``text`` or with the ``rank_fields``."""

    model: Name
    query: Text | dict[str, Json]
    documents: Annotated[list[str | dict[str, Json]], Meta(min_length=1, max_length=MOST_DOCUMENTS)]
    top_n: Annotated[int, Meta(ge=1, description="How many of the best to return; all, if not given.")] | None = None
    return_documents: Annotated[bool, Meta(description="Also send the documents back.")] | None = None
    rank_fields: Annotated[list[str], Meta(min_length=1, description="Fields of an object to rank by.")] | None = None
    max_tokens_per_doc: (
        Annotated[Count, Meta(description="Cut each document to so many tokens; refused by engines that can't.")] | None
    ) = None
    use_activation: Annotated[bool, Meta(description="False: logits instead of their sigmoids.")] | None = None
    user: str | None = None  # no effect: clients send it
    # Of the services' own, and not for one's own machine.
    max_chunks_per_doc: Json = None
    relevant_spans: Json = None
    priority: int | None = None
    truncation: bool | None = None
    truncate_prompt_tokens: int | None = None


class ScoreRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of a score: one text (or a list of one) against each of ``text_2``, or lists of one length in pairs."""

    model: Name
    text_1: Text | Annotated[list[Text], Meta(min_length=1)]
    text_2: Text | Annotated[list[Text], Meta(min_length=1, max_length=MOST_DOCUMENTS)]
    use_activation: Annotated[bool, Meta(description="False: logits instead of their sigmoids.")] | None = None
    user: str | None = None  # no effect: clients send it
    truncate_prompt_tokens: int | None = None


REFUSED = {
    "max_chunks_per_doc": "give `max_tokens_per_doc`, or send the chunks as documents",
    "relevant_spans": "send the passages as documents of their own",
    "priority": "requests are answered in a fair order",
    "truncate_prompt_tokens": "give `max_tokens_per_doc`, or send shorter texts",
}


def routes(site: Site) -> Routes:
    """Found by ``_further``."""
    assert site.gateway is not None
    hot: dict[str, Hot] = {}
    described: dict[str, Described] = {}
    for path in ("/v2/rerank", "/v1/rerank", "/rerank"):
        hot[path] = Endpoint(site.gateway, Rerank(2 if "v2" in path else 1), site.watchdog, style=STYLE)
        described[path] = Described(
            body=RerankRequest, summary="Order documents by how well they answer a query", tag="Rerank"
        )
    for path in ("/v1/score", "/score"):
        hot[path] = Endpoint(site.gateway, Score(), site.watchdog)
        described[path] = Described(body=ScoreRequest, summary="Score pairs of texts", tag="Rerank")
    return Routes(hot=hot, described=described)


def error_body(error: DockyardError) -> bytes:
    """A failure as Cohere (``message``), Jina (``detail``) and vLLM (``error``) say it, in one object."""
    told = error.message if not error.hint else f"{error.message} ({error.hint})"
    return _encode({"id": str(uuid.uuid4()), "message": told, "detail": told, "error": error_fields(error)})


STYLE = Style(error=error_body)


class Rerank:
    """Reads rerank requests; ``version`` is of Cohere's API."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._reader = BodyReader(RerankRequest)

    def read(self, body: bytes) -> RerankAsked:
        asked, _ = self._reader.read(body)
        _openai.refuse(asked, REFUSED)
        if asked.truncation is False:
            raise UnsupportedParameter("'truncation' can't be turned off", param="truncation", hint="leave it out")
        texts = tuple([_text(one, asked, number) for number, one in enumerate(asked.documents)])
        query = _query(asked.query)
        extra: dict[str, Json] = {}
        if asked.max_tokens_per_doc is not None:
            extra["max_tokens_per_doc"] = asked.max_tokens_per_doc
        request = Request(id=_openai.new_id("rerank-"), kind="rerank", query=query, inputs=texts, extra=extra)
        return RerankAsked(Call(request=request, model=asked.model, dialect="rerank"), asked, self._version)


class RerankAsked:
    """A rerank request and the writing of its answer."""

    def __init__(self, call: Call, asked: RerankRequest, version: int) -> None:
        self.calls = [call]
        self._asked = asked
        self._version = version

    def begin(self) -> bytes:
        return b""

    def events(self, batch: list[Chunk]) -> bytes:  # noqa: ARG002 - one chunk holds everything
        return b""

    def end(self, usage: Usage, extra: dict[str, Any] | None) -> bytes:  # noqa: ARG002
        return b""

    def whole(self, batches: list[list[Chunk]], usage: Usage, extra: dict[str, Any] | None) -> bytes:
        asked = self._asked
        scores = _activated(_scores(batches, 1)[0], asked.use_activation)
        best = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[: asked.top_n]
        results: list[dict[str, Any]] = []
        for index in best:
            result: dict[str, Any] = {"index": index, "relevance_score": scores[index]}
            if asked.return_documents:
                document = asked.documents[index]
                result["document"] = {"text": document} if isinstance(document, str) else document
            results.append(result)
        return _encode(
            {
                "id": self.calls[0].request.id,
                "object": "list",
                "model": asked.model,
                "results": results,
                "usage": {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens},
                "meta": {
                    "api_version": {"version": str(self._version)},
                    "billed_units": {"search_units": 1},
                    "tokens": {"input_tokens": usage.prompt_tokens, "output_tokens": 0},
                },
                **({"dockyard": extra} if extra is not None else {}),
            }
        )


class Score:
    """Reads score requests."""

    def __init__(self) -> None:
        self._reader = BodyReader(ScoreRequest)

    def read(self, body: bytes) -> ScoreAsked:
        asked, _ = self._reader.read(body)
        _openai.refuse(asked, {"truncate_prompt_tokens": "send shorter texts"})
        first = [asked.text_1] if isinstance(asked.text_1, str) else asked.text_1
        second = [asked.text_2] if isinstance(asked.text_2, str) else asked.text_2
        identity = _openai.new_id("score-")
        if len(first) == 1:
            pairs = [(identity, first[0], tuple(second))]
        elif len(first) != len(second):
            raise InvalidRequest(
                f"text_1 has {len(first)} texts and text_2 has {len(second)}: they make no pairs",
                param="text_1",
                hint="send one text against many, or two lists of one length",
            )
        elif len(first) > MOST_PAIRS:
            raise InvalidRequest(f"{len(first)} pairs are too many; {MOST_PAIRS} is the most", param="text_1")
        else:
            pairs = [(f"{identity}-{n}", a, (b,)) for n, (a, b) in enumerate(zip(first, second, strict=True))]
        calls = [
            Call(request=Request(id=name, kind="rerank", query=a, inputs=b), model=asked.model, dialect="score")
            for name, a, b in pairs
        ]
        return ScoreAsked(identity, calls, asked)


class ScoreAsked(RerankAsked):
    """A score request and the writing of its answer."""

    def __init__(self, identity: str, calls: list[Call], asked: ScoreRequest) -> None:
        self.calls = calls
        self._identity = identity
        self._score = asked

    def whole(self, batches: list[list[Chunk]], usage: Usage, extra: dict[str, Any] | None) -> bytes:
        found = [score for scores in _scores(batches, len(self.calls)) for score in scores]
        scores = _activated(found, self._score.use_activation)
        return _encode(
            {
                "id": self._identity,
                "object": "list",
                "created": int(time.time()),
                "model": self._score.model,
                "data": [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)],
                "usage": {
                    "prompt_tokens": usage.prompt_tokens,
                    "total_tokens": usage.prompt_tokens,
                    "completion_tokens": 0,
                    "prompt_tokens_details": None,
                },
                **({"dockyard": extra} if extra is not None else {}),
            }
        )


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), also where exp would overflow."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    power = math.exp(logit)
    return power / (1 + power)


def _activated(scores: list[float], wanted: bool | None) -> list[float]:
    return scores if wanted is False else [sigmoid(score) for score in scores]


def _scores(batches: list[list[Chunk]], count: int) -> list[list[float]]:
    """Each call's scores."""
    found: list[list[float]] = [[] for _ in range(count)]
    for batch in batches:
        for chunk in batch:
            if chunk.result is not None:
                found[chunk.index].extend(chunk.result.scores)
    return found


def _query(query: str | dict[str, Json]) -> str:
    if isinstance(query, str):
        return query
    if set(query) == {"text"} and isinstance(query["text"], str) and query["text"]:
        return str(query["text"])
    raise InvalidRequest("query is neither text nor an object with a 'text'", param="query")


def _text(document: str | dict[str, Json], asked: RerankRequest, number: int) -> str:
    """What to rank a document by. Raises InvalidRequest."""
    at = f"documents[{number}]"
    if isinstance(document, str):
        if asked.rank_fields is not None:
            raise InvalidRequest(f"{at} is text, and 'rank_fields' are of objects", param=at)
        return document
    fields = asked.rank_fields or ["text"]
    missing = [name for name in fields if document.get(name) is None]
    if missing:
        hint = None if asked.rank_fields else "send texts, objects with a 'text', or `rank_fields`"
        raise InvalidRequest(f"{at} has no {missing[0]!r}", param=f"{at}.{missing[0]}", hint=hint)
    if asked.rank_fields is None:
        if not isinstance(document["text"], str):
            raise InvalidRequest(f"{at}.text is not text", param=f"{at}.text")
        return str(document["text"])
    values = {name: document[name] for name in fields}
    return "\n".join(
        f"{name}: {value if isinstance(value, str) else _encode(value).decode()}" for name, value in values.items()
    )
