"""The words that both echo engines answer with."""

from __future__ import annotations

import re

from dockyard.engines import LoadPlan
from dockyard.settings import Settings
from dockyard.types import Chunk, Kind, LoadOptions, Memory, Message, ModelFiles, Request, TokenLogprob, Usage

SERVES: frozenset[Kind] = frozenset({"chat", "complete"})
_WORD = re.compile(r"\s*\S+|\s+\Z")


def plan(name: str, files: ModelFiles, options: LoadOptions, settings: Settings, memory: int) -> LoadPlan:
    return LoadPlan(
        engine=name,
        context=options.context or settings.context or files.context or 8192,
        parallel=options.parallel or settings.parallel or 16,
        predicted=Memory(workspace=memory),
        details={"speed": settings.echo_tokens_per_second, **options.flags},
    )


def answer(request: Request) -> list[Chunk]:
    """The whole answer, a chunk a word: the last user message (or the prompt) as it came.

    ``max_tokens`` cuts it, ``ignore_eos`` repeats it up to ``max_tokens``, ``stop`` ends it; the last chunk has the
    usage. A word with the white space before it is one token.
    """
    said, prompt_tokens = _said(request)
    sampling = request.sampling
    for stop in sampling.stop:
        if stop:
            said = said.partition(stop)[0]
    words: list[str] = _WORD.findall(said)
    limit = sampling.max_tokens
    if limit is not None and sampling.ignore_eos and words:
        again = words if words[0][0].isspace() else [f" {words[0]}", *words[1:]]
        words = (words + again * (limit // len(words)))[:limit]
    finish = "length" if limit is not None and limit <= len(words) else "stop"
    words = words[:limit] or [""]
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=len([word for word in words if word]) * sampling.n)
    if sampling.n == 1 and sampling.logprobs is None:
        chunks = [Chunk(word) for word in words]
    else:
        certain = sampling.logprobs is not None
        chunks = [
            Chunk(word, index, logprobs=[TokenLogprob(word, 0.0, list(word.encode()))] if certain else None)
            for word in words
            for index in range(sampling.n)
        ]
    for index in range(sampling.n):
        last = chunks[index - sampling.n]
        ends = usage if index == sampling.n - 1 else None
        chunks[index - sampling.n] = Chunk(last.text, last.index, finish, ends, last.logprobs)
    return chunks


def _said(request: Request) -> tuple[str, int]:
    """What to echo, and how many tokens the whole prompt has."""
    if request.messages is None:
        prompt = request.prompt
        text = prompt if isinstance(prompt, str) else " ".join(str(token) for token in prompt or ())
        return text, len(text.split())
    texts = [_text(message) for message in request.messages]
    said = next(
        (text for message, text in zip(reversed(request.messages), reversed(texts), strict=True)
         if message.role == "user"), texts[-1] if texts else ""
    )  # fmt: skip
    return said, sum(len(text.split()) for text in texts)


def _text(message: Message) -> str:
    content = message.content
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.get("text", "") for part in content if isinstance(part, dict) and part.get("type") == "text")
