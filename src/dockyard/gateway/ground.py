"""Grounds a chat in knowledge: passages go in before it, and only sentences that a passage carries come out, cited.

What the documents do not hold is said so, without asking the model. Passages are other people's words: the guards see
each, and what is held back is left out. Who asks decides which documents are searched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.gateway._fleet_models import FleetModels
from dockyard.gateway._parts import Answer, Chunks, Inbound, Outbound, Parts, aclose
from dockyard.types import Call, Chunk, Message, Request, Usage

if TYPE_CHECKING:
    from dockyard.knowledge.answer import Ask
    from dockyard.knowledge.bases import Base
    from dockyard.knowledge.model import Hit, Search


class Grounded(msgspec.Struct, kw_only=True):
    """What a call is grounded in. ``queries`` were searched for; ``checks``: the answer's sentences are checked."""

    question: str
    hits: tuple[Any, ...]
    queries: tuple[str, ...] = ()
    best: Any = None
    """The sentence to quote where the model says nothing that holds: a ``knowledge.claims.Support``."""
    anchor: Any = None
    """The sentence on which the answer has to rest, if one is sure enough for that."""
    confidence: float = 0.0
    held_back: int = 0
    checks: bool = True
    search: Any = None
    """How to search, if the request says: a ``knowledge.model.Search``."""


def inbound(parts: Parts) -> Inbound:
    async def ground(call: Call) -> Answer | None:
        if not call.knowledge or call.request.kind != "chat":
            return None
        if parts.knowledge is None:
            raise InvalidRequest("this server has no knowledge bases", param="model")
        if call.request.sampling.logprobs is not None:
            raise InvalidRequest("a grounded answer is checked and cited, and has no logprobs", param="logprobs")
        question, turns = asked(call.request)
        if not _asks(question) or _has_passages(call.request):
            return None
        return await _grounded(parts, call, parts.knowledge, question, turns)

    return ground


async def _grounded(
    parts: Parts, call: Call, named: Callable[[Sequence[str]], list[Base]], question: str, turns: Sequence[Message]
) -> Answer | None:
    from dockyard.knowledge.answer import LEAST, NOT_FOUND, gather
    from dockyard.knowledge.evidence import evidence
    from dockyard.knowledge.model import Search

    bases = await asyncio.to_thread(named, call.knowledge)
    key = call.principal.name if call.principal is not None else ""
    wanted = call.grounded.search if isinstance(call.grounded, Grounded) and call.grounded.search else Search()
    search = msgspec.structs.replace(wanted, reader=reader(parts, call))
    options = _options(parts, call, search)
    models = FleetModels(parts.fleet, lane=call.lane, key=key)
    hits, held_back, query = await gather(bases, models, question, options, turns)
    there = await evidence(hits, models, await asyncio.to_thread(bases[0].recipe), question, options.judge)
    call.grounded = Grounded(
        question=question,
        hits=tuple(hits),
        queries=(query,),
        best=there.best,
        anchor=there.anchor,
        confidence=there.probability,
        held_back=held_back,
        checks="response_format" not in call.request.extra,
        search=wanted,
    )
    if not hits or there.probability < LEAST:
        call.grounded.checks = False
        return Answer(_said(NOT_FOUND, call.request.sampling.n))
    call.request = msgspec.structs.replace(call.request, messages=_with(call.request.messages or (), hits))
    return None


def _options(parts: Parts, call: Call, search: Search) -> Ask:
    from dockyard import guards
    from dockyard.knowledge.answer import Ask

    own = call.guards if call.guards is not None else parts.guards
    route = parts.stack.routes.get(call.model)
    judge = route.judge if route is not None else ""
    return Ask(search=search, judge=judge, guards=own, classifier=guards.classifier())


def reader(parts: Parts, call: Call) -> str | None:
    """As whom documents are searched; None where there are no keys, and whoever calls may read everything."""
    if parts.keyring.open or call.principal is None:
        return None
    return call.principal.name


def asked(request: Request) -> tuple[str, list[Message]]:
    """The question, which is what the user said last, and the turns before it."""
    messages = list(request.messages or ())
    place = next((n for n in range(len(messages) - 1, -1, -1) if messages[n].role == "user"), None)
    if place is None:
        return "", []
    return text_of(messages[place]), [one for one in messages[:place] if one.role in ("user", "assistant")]


def text_of(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    parts = message.content or []
    return "\n".join(
        str(part["text"]) for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)
    )


def _asks(question: str) -> bool:
    """Whether there is anything to look for: a greeting has no words that documents have."""
    from dockyard.knowledge.claims import words

    return bool(set(words(question)) - GREETINGS)


def _has_passages(request: Request) -> bool:
    """Whether this is a call that was grounded, asked again in another form."""
    from dockyard.knowledge.answer import INSTRUCTION

    first = (request.messages or (None,))[0]
    return first is not None and first.role == "system" and INSTRUCTION in text_of(first)


GREETINGS = frozenset("hello hi hey thank bye goodbye good morn even ok great nice cheer welcom help".split())  # noqa: SIM905


def _with(messages: Sequence[Message], hits: Sequence[Hit]) -> tuple[Message, ...]:
    """The conversation with what was found: after the system's own words, before everybody else's."""
    from dockyard.knowledge.answer import INSTRUCTION, passages

    found = f"{INSTRUCTION}\n\n{passages(hits)}"
    first = messages[0] if messages and messages[0].role == "system" else None
    if first is None:
        return (Message(role="system", content=found), *messages)
    own = msgspec.structs.replace(first, content=f"{text_of(first)}\n\n{found}")
    return (own, *messages[1:])


async def _said(text: str, choices: int) -> Chunks:
    """An answer that no model gave."""
    yield [
        Chunk(text=text, index=index, finish="stop", usage=Usage() if index == choices - 1 else None)
        for index in range(choices)
    ]


def outbound(parts: Parts) -> Outbound:  # noqa: ARG001 - every step is built alike
    def ground(call: Call, chunks: Chunks) -> Chunks:
        grounded = call.grounded
        if not isinstance(grounded, Grounded) or not grounded.checks:
            return chunks
        return _checked(call, grounded, chunks)

    return ground


async def _checked(call: Call, grounded: Grounded, chunks: Chunks) -> Chunks:
    """The answer sentence by sentence, as far as passages carry it; with nothing left, the best sentence quoted."""
    from dockyard.knowledge.checking import Checker

    checkers = {index: Checker(grounded.hits, grounded.anchor) for index in range(call.request.sampling.n)}
    try:
        async for batch in chunks:
            out: list[Chunk] = []
            for chunk in batch:
                checker = checkers.setdefault(chunk.index, Checker(grounded.hits, grounded.anchor))
                text = checker.add(chunk.text) if chunk.text else ""
                notes = None
                if chunk.finish is not None:
                    text += checker.end()
                    if checker.empty and not chunk.tool_calls and chunk.finish != "content_filter":
                        text = _instead(grounded, checker)
                    notes = checker.annotations or None
                plain = chunk.reasoning or chunk.tool_calls or chunk.usage or chunk.truncated
                if text or plain or chunk.finish is not None:
                    out.append(msgspec.structs.replace(chunk, text=text, annotations=notes))
            if out:
                yield out
    finally:
        await aclose(chunks)


def _instead(grounded: Grounded, checker: Any) -> str:
    from dockyard.knowledge.answer import NOT_FOUND

    found = grounded.best
    if found is None:
        return NOT_FOUND
    text: str = checker.quote(found.hit, found.start, found.end)
    return text
