"""What both echo engines answer: the plain way here, everything else in ``_echo_script`` and ``_echo_numbers``."""

from __future__ import annotations

import re

import msgspec

from dockyard.engines import LoadPlan
from dockyard.errors import ContextOverflow, UnsupportedParameter
from dockyard.settings import Settings
from dockyard.types import Chunk, Json, Kind, LoadOptions, Memory, Message, ModelFiles, Request, TokenLogprob, Usage

SERVES: frozenset[Kind] = frozenset({"chat", "complete", "embed", "rerank", "tokenize", "detokenize", "template"})
ACCEPTS = frozenset(
    {"chat_template_kwargs", "parallel_tool_calls", "reasoning_effort", "response_format", "tool_choice", "tools"}
)
"""Fields of ``Request.extra`` that change an answer here."""
MOST_WORDS = 1 << 14
LONGEST_WORD = 200
_WORD = re.compile(r"\s*\S+|\s+\Z")


class Vocabulary(dict[int, str]):
    """Words by their token ids, as far as they were seen lately: what makes ``detokenize`` possible."""

    def learn(self, token: int, word: str) -> None:
        if len(word) <= LONGEST_WORD and token not in self:
            if len(self) >= MOST_WORDS:
                self.pop(next(iter(self)), None)  # another thread may have been quicker
            self[token] = word

    def text(self, tokens: list[int]) -> str:
        """The words of these ids; a number that stands for none is said itself."""
        said = [self.get(token, f" {token}") for token in tokens]
        return "".join([said[0].removeprefix(" ") if tokens[0] not in self else said[0], *said[1:]]) if said else ""


def plan(name: str, files: ModelFiles, options: LoadOptions, settings: Settings, memory: int) -> LoadPlan:
    return LoadPlan(
        engine=name,
        context=options.context or settings.context or files.context or 8192,
        parallel=options.parallel or settings.parallel or 16,
        predicted=Memory(workspace=memory),
        details={"speed": settings.echo_tokens_per_second, **options.flags},
    )


def answer(request: Request, context: int, known: Vocabulary) -> list[Chunk]:
    """The whole answer, a chunk a word: the last user message (or the prompt) as it came.

    ``max_tokens`` cuts it, ``ignore_eos`` repeats it up to ``max_tokens``, ``stop`` ends it; the last chunk has the
    usage. A word with the white space before it is one token. Raises ContextOverflow beyond ``context`` tokens.
    """
    if request.kind not in ("chat", "complete"):
        from dockyard.engines import _echo_numbers

        return _echo_numbers.answer(request, context, known)
    said, prompt_tokens = _said(request, known)
    within(prompt_tokens, context)
    chunks = None
    if request.extra:
        _refuse_unknown(request.extra)
        from dockyard.engines import _echo_script

        chunks = _echo_script.play(request, said, prompt_tokens)
    chunks = chunks or say(request, said, prompt_tokens)
    if request.counting:
        chunks = _counted(chunks, prompt_tokens)
    if request.sampling.prompt_logprobs is not None:
        from dockyard.engines import _echo_numbers

        return _echo_numbers.with_prompt_logprobs(request, chunks, known)
    return chunks


def say(request: Request, said: str, prompt_tokens: int, *, thought: tuple[str, ...] = ()) -> list[Chunk]:
    """These words as an answer, after those that were thought."""
    sampling = request.sampling
    stopped = None
    for stop in sampling.stop:
        if stop and stop in said:
            said, stopped = said.partition(stop)[0], stop
    words: list[str] = _WORD.findall(said)
    limit = sampling.max_tokens
    if limit is not None and sampling.ignore_eos and words:
        again = words if words[0][0].isspace() else [f" {words[0]}", *words[1:]]
        words = (words + again * (limit // len(words)))[:limit]
    spent = len(thought)
    finish = "length" if limit is not None and limit <= len(words) + spent else "stop"
    if limit is not None:
        thought, words = thought[:limit], words[: max(0, limit - spent)]
    words = words or [""]
    count = len(thought) + len([word for word in words if word])
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=count * sampling.n)
    if sampling.n == 1 and sampling.logprobs is None:
        chunks = [Chunk(word) for word in words]
    else:
        chunks = [
            Chunk(word, index, logprobs=None if sampling.logprobs is None else _certain(word, sampling.logprobs))
            for word in words
            for index in range(sampling.n)
        ]
    if thought:
        chunks = [Chunk(index=index, reasoning=word) for word in thought for index in range(sampling.n)] + chunks
    return ended(chunks, sampling.n, finish, usage, stopped if finish == "stop" else None)


def ended(chunks: list[Chunk], n: int, finish: str, usage: Usage, stop: str | None = None) -> list[Chunk]:
    """The same with each choice's last chunk saying why it is the last; those are the last ``n``."""
    for index in range(n):
        last = chunks[index - n]
        ends = usage if index == n - 1 else None
        told = Chunk(last.text, last.index, finish, ends, last.logprobs, last.reasoning, last.tool_calls, stop=stop)
        chunks[index - n] = told
    return chunks


def _counted(chunks: list[Chunk], prompt_tokens: int) -> list[Chunk]:
    """The same, each saying what was taken so far."""
    found, count = [], 0
    for chunk in chunks:
        count += bool(chunk.text or chunk.reasoning or chunk.tool_calls)
        so_far = Usage(prompt_tokens=prompt_tokens, completion_tokens=count)
        found.append(msgspec.structs.replace(chunk, so_far=so_far))
    return found


def within(tokens: int, context: int) -> None:
    """Raises ContextOverflow where there are more tokens than the context holds."""
    if tokens > context:
        raise ContextOverflow(
            f"the prompt has {tokens} tokens, the context {context}",
            hint="shorten the prompt or load the model with a larger context",
        )


def words_of(text: str) -> list[str]:
    """The tokens of a text: each word with the white space before it."""
    return _WORD.findall(text)


def text_of(message: Message) -> str:
    content = message.content
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.get("text", "") for part in content if isinstance(part, dict) and part.get("type") == "text")


def _certain(word: str, alternatives: int) -> list[TokenLogprob]:
    known = list(word.encode())
    return [TokenLogprob(word, 0.0, known, [TokenLogprob(word, 0.0, known)] if alternatives else [])]


def _refuse_unknown(extra: dict[str, Json]) -> None:
    for name in extra:
        if name not in ACCEPTS:
            raise UnsupportedParameter(f"the echo engine does not take {name!r}", param=name)


def _said(request: Request, known: Vocabulary) -> tuple[str, int]:
    """What to echo, and how many tokens the whole prompt has."""
    if request.messages is None:
        prompt = request.prompt
        text = prompt if isinstance(prompt, str) else known.text(prompt or [])
        if request.suffix:
            text += request.suffix
        return text, len(text.split())
    texts = [text_of(message) for message in request.messages]
    said = next(
        (text for message, text in zip(reversed(request.messages), reversed(texts), strict=True)
         if message.role == "user"), texts[-1] if texts else ""
    )  # fmt: skip
    return said, sum(len(text.split()) for text in texts)
