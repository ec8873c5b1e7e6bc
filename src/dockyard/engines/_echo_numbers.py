"""What the echo engines compute instead of saying it: vectors, scores, tokens and the log-probabilities of a prompt.

All of it is a pure function of the text, the same on every machine:

- an embedding is the normalised sum of a pseudo-random vector for each of its words: texts that share some are close;
- a document's score is the cosine of its set of words and the query's;
- a word that was said before in the same prompt is likely (log-probability -0.1), any other is not (-0.5 a character).
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
import zlib
from functools import lru_cache

from dockyard.engines import _echo
from dockyard.engines._echo import Vocabulary, words_of
from dockyard.types import Chunk, Json, Request, Result, TokenLogprob, Usage

WIDTH = 128
LIKELY = -0.1
UNLIKELY = -0.5
_TERM = re.compile(r"\w+")


def answer(request: Request, context: int, known: Vocabulary) -> list[Chunk]:
    """One chunk with the result, for every kind that is not generation."""
    text, result = "", None
    if request.kind == "embed":
        texts = [one if isinstance(one, str) else known.text(one) for one in request.inputs]
        counts = [_counted(text, context) for text in texts]
        result = Result(vectors=tuple(vector(text) for text in texts))
    elif request.kind == "rerank":
        query = request.query or ""
        documents = [one if isinstance(one, str) else known.text(one) for one in request.inputs]
        counts = [_counted(f"{query} {document}", context) for document in documents]
        result = Result(scores=tuple(overlap(query, document) for document in documents))
    elif request.kind == "tokenize":
        words = words_of(template(request) if request.messages is not None else _prompt(request, known))
        counts = [len(words)]
        result = Result(tokens=tuple(_id(word, known) for word in words))
    elif request.kind == "template":
        text = template(request)
        counts = [len(words_of(text))]
    else:
        text = _prompt(request, known)
        counts = [len(words_of(text))]
    return [Chunk(text, finish="stop", usage=Usage(prompt_tokens=sum(counts)), result=result)]


def vector(text: str) -> bytes:
    """A unit vector of little-endian float32 for a text."""
    total = [0] * WIDTH
    for term in set(_TERM.findall(text.lower())):
        total = [one + other for one, other in zip(total, _term_vector(term), strict=True)]
    length = math.sqrt(sum(one * one for one in total))
    if not length:
        total, length = [1, *[0] * (WIDTH - 1)], 1.0
    return struct.pack(f"<{WIDTH}f", *(one / length for one in total))


@lru_cache(1024)
def _term_vector(term: str) -> tuple[int, ...]:
    # Odd numbers around 0: no component of a single word vanishes.
    return tuple(2 * byte - 255 for byte in hashlib.shake_128(term.encode("utf-8", "replace")).digest(WIDTH))


def overlap(query: str, document: str) -> float:
    """How many words they share, from 0 to 1."""
    asked, found = set(_TERM.findall(query.lower())), set(_TERM.findall(document.lower()))
    return len(asked & found) / math.sqrt(len(asked) * len(found)) if asked and found else 0.0


def template(request: Request) -> str:
    """What a model would see: each turn after its role, on a line of its own."""
    turns = [f"<{message.role}>{_echo.text_of(message)}" for message in request.messages or ()]
    return "\n".join(turns)


def with_prompt_logprobs(request: Request, chunks: list[Chunk], known: Vocabulary) -> list[Chunk]:
    """The same answer, its first chunk carrying what the prompt's own tokens were worth."""
    text = template(request) if request.messages is not None else _prompt(request, known)
    first = chunks[0]
    found = prompt_logprobs(words_of(text), request.sampling.prompt_logprobs or 0)
    result = Result(prompt_logprobs=found)
    return [
        Chunk(
            first.text, first.index, first.finish, first.usage, first.logprobs, first.reasoning, first.tool_calls,
            result=result,
        ),
        *chunks[1:],
    ]  # fmt: skip


def prompt_logprobs(words: list[str], alternatives: int) -> tuple[TokenLogprob | None, ...]:
    """One entry a word, with up to so many alternatives, likeliest first."""
    seen: set[str] = set()
    found: list[TokenLogprob | None] = []
    before = ""
    for number, word in enumerate(words):
        bare = word.strip()
        said = bare in seen
        own = _logprob(word, LIKELY if said else UNLIKELY * max(1, len(bare)))
        top = [own] if said else [_logprob(before, LIKELY), own]
        found.append(None if not number else TokenLogprob(own.token, own.logprob, own.bytes, top[:alternatives]))
        seen.add(bare)
        before = word
    return tuple(found)


def _logprob(word: str, value: float) -> TokenLogprob:
    return TokenLogprob(word, value, list(word.encode("utf-8", "replace")))


def _counted(text: str, context: int) -> int:
    count = len(text.split())
    _echo.within(count, context)
    return count


def _prompt(request: Request, known: Vocabulary) -> str:
    prompt: Json = request.prompt
    return prompt if isinstance(prompt, str) else known.text(prompt or [])


def _id(word: str, known: Vocabulary) -> int:
    token = zlib.crc32(word.encode("utf-8", "surrogatepass")) >> 1
    known.learn(token, word)
    return token
