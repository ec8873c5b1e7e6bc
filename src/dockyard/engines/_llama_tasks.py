"""What llama.cpp's server does beside generating: vectors, scores, tokens, templates, a prompt's own probabilities."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from dockyard.engines import Emit
from dockyard.errors import ContextOverflow, EngineError, InvalidRequest, UnsupportedParameter
from dockyard.types import Chunk, Json, Request, Result, TokenLogprob, Usage

Reply = TypeVar("Reply")
Ask = Callable[[str, bytes], bytes]
"""Sends a body to a route of llama.cpp's server and gives its reply."""

BIAS = 10_000.0
"""Added to a token's logit so that it must come; the probabilities told are those before any bias."""

_UNSCORED = TokenLogprob("", 0.0)

FORCED = 128
"""Prompt tokens that are scored in one go; between two, a cancellation is seen."""

LISTED = (256, 1 << 20)
"""How many alternatives are read through for a token that is not told otherwise; the last is more than there are."""

_FIM = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
    ("<|prefix|>", "<|suffix|>", "<|middle|>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    ("<PRE>", "<SUF>", "<MID>"),
)
"""The marks of prefix, suffix and middle in the families that llama.cpp knows."""


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Text(msgspec.Struct):
    content: str = ""
    prompt: str = ""


class _Vector(msgspec.Struct):
    index: int
    embedding: str


class _Vectors(msgspec.Struct):
    data: list[_Vector]


class _Score(msgspec.Struct):
    index: int
    relevance_score: float


class _Counts(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0


class _Scores(msgspec.Struct):
    results: list[_Score]
    usage: _Counts = _Counts()


class _Likely(msgspec.Struct):
    id: int
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[_Likely] = []


class _Piece(msgspec.Struct):
    id: int
    piece: str | list[int]


class _Pieces(msgspec.Struct):
    tokens: list[_Piece]


class _Forced(msgspec.Struct):
    completion_probabilities: list[_Likely] = []


class Tasks:
    """Bound to one loaded model: ``context`` is the longest text it reads, ``parallel`` how many it reads at once."""

    def __init__(self, ask: Ask, context: int, parallel: int) -> None:
        self._ask = ask
        self._context = context
        self._group = 4 * parallel
        self._marks: tuple[int, int, int] | None = None

    def tokens(self, text: str, *, special: bool = True, marks: bool = True) -> list[int]:
        """Ids of a text: ``special`` puts in front what the model begins with, ``marks`` reads control tokens."""
        body = {"content": text, "add_special": special, "parse_special": marks}
        return self._told("/tokenize", body, _Tokens).tokens

    def tokenize(self, request: Request, fields: dict[str, Json], *, special: bool = True) -> Chunk:
        prompt = self.prompt(request, fields)
        ids = prompt if isinstance(prompt, list) else self.tokens(prompt, special=special)
        return _whole(Result(tokens=tuple(ids)), len(ids))

    def detokenize(self, request: Request) -> Chunk:
        if not isinstance(request.prompt, list):
            raise InvalidRequest("token ids are wanted", param="prompt")
        text = self._told("/detokenize", {"tokens": request.prompt}, _Text).content
        return Chunk(text, finish="stop", usage=Usage(prompt_tokens=len(request.prompt)))

    def template(self, fields: dict[str, Json]) -> Chunk:
        """The text that the model would see."""
        text = self._told("/apply-template", fields, _Text).prompt
        return Chunk(text, finish="stop", usage=Usage(prompt_tokens=len(self.tokens(text))))

    def prompt(self, request: Request, fields: dict[str, Json]) -> str | list[int]:
        """What a request's model reads: text or ids; a conversation is put through the template."""
        if request.messages is not None:
            return self._told("/apply-template", fields, _Text).prompt
        if request.prompt is None:
            raise InvalidRequest("there is neither a prompt nor messages", param="prompt")
        return request.prompt

    def infill(self, prefix: str | list[int], suffix: str) -> list[int]:
        """The ids that ask a model for what belongs between both. Raises UnsupportedParameter if it never learnt to."""
        if self._marks is None:
            self._marks = self._find_marks()
        before, after, middle = self._marks
        with_start, plain = self.tokens("a"), self.tokens("a", special=False)
        start = with_start[:1] if with_start[:1] != plain[:1] else []
        head = prefix if isinstance(prefix, list) else self.tokens(prefix, special=False, marks=False)
        tail = self.tokens(suffix, special=False, marks=False)
        return [*start, before, *head, after, *tail, middle]

    def embed(self, request: Request, emit: Emit) -> Chunk | None:
        """One vector each; None: cancelled. Raises ContextOverflow naming the input that is too long."""
        if not request.inputs:
            raise InvalidRequest("there is nothing to embed", param="input")
        texts: list[list[int]] = []
        for number, text in enumerate(request.inputs):
            ids = text if isinstance(text, list) else self.tokens(text)
            if not ids or text == "":
                raise InvalidRequest(f"input {number} is empty", param=f"input[{number}]")
            self._check(len(ids), f"input {number}", f"input[{number}]")
            texts.append(ids)
        vectors: list[bytes] = []
        for group in _groups(texts, self._group):
            if emit(None):
                return None
            found = self._told("/v1/embeddings", {"input": group, "encoding_format": "base64"}, _Vectors)
            ordered = sorted(found.data, key=lambda each: each.index)
            vectors += [base64.b64decode(each.embedding) for each in ordered]
        return _whole(Result(vectors=tuple(vectors)), sum(map(len, texts)))

    def rerank(self, request: Request, emit: Emit) -> Chunk | None:
        """One score each, higher is better; None: cancelled. Raises ContextOverflow naming what is too long."""
        if not request.query:
            raise InvalidRequest("there is no query", param="query")
        if not request.inputs or not all(isinstance(each, str) and each for each in request.inputs):
            raise InvalidRequest("documents are texts, and at least one", param="documents")
        asked = len(self.tokens(request.query))
        for number, text in enumerate(request.inputs):
            length = asked + len(self.tokens(str(text)))
            self._check(length, f"the query with document {number}", f"documents[{number}]")
        scores: list[float] = []
        read = 0
        for group in _groups(request.inputs, self._group):
            if emit(None):
                return None
            found = self._told("/v1/rerank", {"query": request.query, "documents": group}, _Scores)
            scores += [each.relevance_score for each in sorted(found.results, key=lambda each: each.index)]
            read += found.usage.prompt_tokens
        return _whole(Result(scores=tuple(scores)), read)

    def score(self, ids: list[int], wanted: int, start: int, lora: Json, emit: Emit) -> Result | None:
        """The log-probability of each token of a prompt from ``start`` on, given those before it; None: cancelled.

        llama.cpp tells probabilities only of tokens that it generates, so a grammar makes it generate the prompt:
        exact, and as slow as an answer of that length. What goes before ``start`` is read as any prompt is.
        """
        self._check(len(ids) + 1, "the prompt", "prompt")
        pieces = self._pieces(ids)
        alone = {each for each, piece in pieces.items() if _may_end(piece)}
        parts = {each for each, piece in pieces.items() if _is_part(piece)}
        found: list[TokenLogprob | None] = [None, *[_UNSCORED] * (min(start, len(ids)) - 1)]
        while len(found) < len(ids):
            if emit(None):
                return None
            begin = len(found)
            before, wanted_id = ids[:begin], ids[begin]
            if wanted_id in parts:
                found.append(self._looked_up(before, wanted_id, wanted, lora))
                continue
            ahead = list(itertools.takewhile(lambda each: each not in alone | parts, ids[begin : begin + FORCED]))
            if ahead:
                told = self._forced(before, len(ahead), wanted, lora, grammar=_exactly(ahead))
            else:
                ahead = [wanted_id]
                told = self._forced(before, 1, wanted, lora, logit_bias=[(wanted_id, BIAS)])
            if not told or [each.id for each in told] != ahead[: len(told)]:
                raise EngineError("llama.cpp left the prompt while it was scored", hint="the worker's log may tell")
            found += [_logprob(each, each.top_logprobs[:wanted]) for each in told]
        named = [each and _named(each, pieces[token]) for token, each in zip(ids, found, strict=True)]
        return Result(tokens=tuple(ids), prompt_logprobs=tuple(named))

    def _looked_up(self, before: list[int], token: int, wanted: int, lora: Json) -> TokenLogprob:
        """A token that leaves a character unfinished is not told when it is drawn: something else is, and all
        alternatives to that."""
        (other, *_) = self.tokens("a", special=False)
        for listed in LISTED:
            (told,) = self._forced(before, 1, listed, lora, logit_bias=[(other, BIAS)])
            for each in told.top_logprobs:
                if each.id == token:
                    return _logprob(each, told.top_logprobs[:wanted])
        raise EngineError("llama.cpp does not tell how likely a token of the prompt is")

    def _forced(self, prompt: list[int], steps: int, listed: int, lora: Json, **force: Json) -> list[_Likely]:
        fields: dict[str, Json] = {
            "prompt": prompt, "n_predict": steps, "n_probs": max(1, listed), "temperature": 0, "samplers": ["top_k"],
            "top_k": 1, "cache_prompt": True, **force,
        }  # fmt: skip
        if lora is not None:
            fields["lora"] = lora
        return self._told("/completion", fields, _Forced).completion_probabilities

    def _pieces(self, ids: list[int]) -> dict[int, bytes]:
        found = self._told("/tokenize", {"content": sorted(set(ids)), "with_pieces": True}, _Pieces).tokens
        return {each.id: bytes(each.piece) if isinstance(each.piece, list) else each.piece.encode() for each in found}

    def _check(self, length: int, what: str, param: str) -> None:
        if length > self._context:
            raise ContextOverflow(
                f"{what} has {length} tokens; this model is loaded with a context of {self._context}",
                param=param,
                hint="shorten it, or load the model with a larger context",
            )

    def _find_marks(self) -> tuple[int, int, int]:
        for family in _FIM:
            found = [self.tokens(mark, special=False) for mark in family]
            if all(len(ids) == 1 for ids in found):
                return found[0][0], found[1][0], found[2][0]
        raise UnsupportedParameter(
            "this model has no tokens to fill in the middle",
            param="suffix",
            hint="use a model that was trained on it, such as Qwen2.5-Coder",
        )

    def _told(self, route: str, fields: Json, kind: type[Reply]) -> Reply:
        return msgspec.json.decode(self._ask(route, msgspec.json.encode(fields)), type=kind)


def _groups(items: Sequence[Json], size: int) -> Iterator[list[Json]]:
    for begin in range(0, len(items), size):
        yield list(items[begin : begin + size])


def _whole(result: Result, read: int) -> Chunk:
    return Chunk(finish="stop", usage=Usage(prompt_tokens=read), result=result)


def _exactly(ids: list[int]) -> str:
    return "root ::= " + " ".join(f"<[{each}]>" for each in ids)


def _may_end(piece: bytes) -> bool:
    """Whether a token might end an answer, by its looks: where a grammar asks for such a one llama.cpp aborts."""
    return not piece or b"<" in piece or b"[" in piece


def _is_part(piece: bytes) -> bool:
    """Whether a token begins or ends within a character."""
    try:
        piece.decode()
    except UnicodeDecodeError:
        return True
    return False


def _named(found: TokenLogprob, piece: bytes) -> TokenLogprob:
    """With the token's own text; llama.cpp shows control tokens as nothing."""
    return TokenLogprob(piece.decode("utf-8", "replace"), found.logprob, list(piece), found.top)


def _logprob(found: _Likely, listed: list[_Likely]) -> TokenLogprob:
    top = [TokenLogprob(each.token, each.logprob, each.bytes) for each in listed]
    return TokenLogprob(found.token, found.logprob, found.bytes, top)
