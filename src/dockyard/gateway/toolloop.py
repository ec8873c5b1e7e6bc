"""A model that uses tools: it is asked, what it calls is run, it is told, and asked again until it only speaks.

    ask the model → pass on what it says → run its calls, one after the other → tell it the results → ask again

Every call goes through ``Toolbox.call``, which decides and cleans; a call that fails is a result like any other. Calls
run in the order they were made, since what one brings in decides what the next may do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from dockyard.errors import DockyardError, InvalidRequest
from dockyard.gateway._toolloop_events import SEARCH, Asks, Began, Bounds, Done, Event, Found, Offer, Offered, Said, Use
from dockyard.gateway._toolloop_result import cut, failed, told
from dockyard.tools.model import ApprovalNeeded, Outcome, Session, ToolFailed
from dockyard.types import Chunk, Json, Message, Request, Usage

__all__ = ["Asks", "Began", "Bounds", "Done", "Event", "Found", "Loop", "Offer", "Offered", "Said", "Use"]

log = logging.getLogger(__name__)

FOUND = 5
"""Tools that one search offers."""
DENIED = "a person would have to agree to this call, and nobody can be asked here"

Ask = Callable[[Request], AsyncGenerator[list[Chunk], None]]
"""Generates the answer to a request; closing it cancels the generation."""


class Loop:
    """One loop; ``run`` may be iterated once.

    ``box`` is the Toolbox. ``asks``: the client can be asked for approvals. ``resumed`` are uses that a person agreed
    to after an earlier answer: they come first. ``first`` are the functions that the model may choose from at first, if
    not all. ``usage`` counts the tokens of all rounds so far.
    """

    def __init__(
        self,
        box: Any,
        session: Session,
        offer: Offer,
        request: Request,
        ask: Ask,
        bounds: Bounds,
        *,
        asks: bool = False,
        resumed: Sequence[Use] = (),
        first: Collection[str] = (),
    ) -> None:
        self._box = box
        self._session = session
        self._offer = offer
        self._request = request
        self._ask = ask
        self._bounds = bounds
        self._asks = asks
        self._resumed = resumed
        self._first = first
        self._own = list(request.extra.get("tools") or ())
        self._messages = list(request.messages or ())
        self._calls = 0
        self._waiting = False
        self._end = 0.0
        self.usage = Usage()

    async def run(self) -> AsyncGenerator[Event, None]:
        """The news of the loop, as they come. Raises what the model's answer raises."""
        self._end = asyncio.get_running_loop().time() + self._bounds.seconds
        if self._resumed:
            async with aclosing(self._round_of(_Round(), list(self._resumed))) as events:
                async for event in events:
                    yield event
        choice: Json = self._request.extra.get("tool_choice")
        for number in range(self._bounds.rounds + 1):
            if self._waiting:
                break
            spent = number == self._bounds.rounds or self._calls >= self._bounds.calls
            heard = _Round()
            async with aclosing(self._hear(heard, "none" if spent else choice)) as batches:
                async for chunks in batches:
                    yield Said(chunks)
            uses = [] if spent else [self._meant(one) for one in heard.mine()]
            if not uses:
                yield self._last(heard.finish if not spent or heard.finish != "tool_calls" else "stop")
                return
            async with aclosing(self._round_of(heard, uses)) as events:
                async for event in events:
                    yield event
            if heard.others or heard.finish == "length":
                yield self._last(heard.finish)
                return
            choice = "auto" if choice is not None else None
        yield self._last("stop")

    def _last(self, finish: str | None) -> Said:
        return Said([Chunk(finish=finish or "stop", usage=self.usage)])

    # the model

    async def _hear(self, heard: _Round, choice: Json) -> AsyncGenerator[list[Chunk], None]:
        """One answer of the model: what of it is the client's, while ``heard`` takes the rest."""
        room = self._room()
        if room == 0 or self._late():
            heard.finish = "length"
            return
        functions = [*self._own, *self._offer.functions()]
        if self._first:
            functions = [one for one in functions if one["function"]["name"] in self._first]
            self._first = ()
        extra = {name: value for name, value in self._request.extra.items() if name not in ("tools", "tool_choice")}
        if functions:
            extra["tools"] = functions
            if choice is not None:
                extra["tool_choice"] = choice
        else:
            extra.pop("parallel_tool_calls", None)
        sampling = msgspec.structs.replace(self._request.sampling, max_tokens=room)
        request = msgspec.structs.replace(self._request, messages=tuple(self._messages), extra=extra, sampling=sampling)
        async with aclosing(self._ask(request)) as batches:
            async for batch in batches:
                chunks = [found for chunk in batch if (found := heard.add(chunk, self._offer)) is not None]
                if self._request.counting:
                    chunks = [self._counted(chunk) for chunk in chunks]
                if heard.usage is not None:
                    self._count(heard.usage)
                    heard.usage = None
                if chunks:
                    yield chunks
                if self._late():
                    heard.finish = "length"
                    return

    def _room(self) -> int | None:
        """How many tokens the model may still write; None: any number."""
        limits = [limit for limit in (self._request.sampling.max_tokens, self._bounds.tokens) if limit]
        return max(0, min(limits) - self.usage.completion_tokens) if limits else None

    def _late(self) -> bool:
        return asyncio.get_running_loop().time() >= self._end

    def _count(self, usage: Usage) -> None:
        self.usage = self._with(usage)

    def _counted(self, chunk: Chunk) -> Chunk:
        """The same, with what earlier answers took in what was taken so far."""
        so_far = None if chunk.so_far is None else self._with(chunk.so_far)
        return msgspec.structs.replace(chunk, so_far=so_far)

    def _with(self, usage: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.usage.prompt_tokens + usage.prompt_tokens,
            completion_tokens=self.usage.completion_tokens + usage.completion_tokens,
            cached_tokens=self.usage.cached_tokens + usage.cached_tokens,
        )

    # its calls

    def _meant(self, call: dict[str, Any]) -> Use:
        function = call["function"]
        name = function["name"]
        return Use(id=call["id"], function=name, arguments=function["arguments"], offered=self._offer.get(name))

    async def _round_of(self, heard: _Round, uses: list[Use]) -> AsyncGenerator[Event, None]:
        """Run these calls, and tell the model. What is beyond the bound on calls is ignored."""
        answers: list[tuple[Use, str]] = []
        for use in uses:
            if self._calls >= self._bounds.calls:
                break
            self._calls += 1
            async with aclosing(self._run_one(use)) as events:
                async for event in events:
                    yield event
                    if isinstance(event, Done):
                        answers.append((use, event.text))
                    elif isinstance(event, Found):
                        answers.append((use, listing(event.tools)))
        if answers:
            calls = [_call(use) for use, _ in answers]
            text, thought = heard.text or None, heard.reasoning or None
            self._messages.append(Message(role="assistant", content=text, tool_calls=calls, reasoning_content=thought))
            self._messages += [Message(role="tool", content=text, tool_call_id=use.id) for use, text in answers]

    async def _run_one(self, use: Use) -> AsyncGenerator[Event, None]:
        try:
            arguments = _read(use)
        except InvalidRequest as error:
            yield Began(use)
            yield Done(use=use, text=failed(error), error=error)
            return
        if use.offered is None and use.function == SEARCH:
            query = str(arguments.get("query") or "")
            yield Found(use, query, self._offer.find(query, FOUND))
            return
        quiet = self._asks and not use.approval and await self._would_ask(use, arguments)
        if not quiet:
            yield Began(use)
        outcome, wrong = await self._call(use, arguments)
        if isinstance(wrong, ApprovalNeeded) and self._asks:
            if not quiet:
                yield Done(use=use, text=failed(wrong), error=wrong)
            self._waiting = True
            yield Asks(use, wrong.approval)
            return
        if isinstance(wrong, ApprovalNeeded):
            wrong = ToolFailed(DENIED)
        if quiet:
            yield Began(use)
        if outcome is not None:
            yield Done(use=use, text=told(outcome, self._bounds.result), outcome=outcome)
        elif wrong is not None:
            yield Done(use=use, text=cut(failed(wrong), self._bounds.result), error=wrong)

    async def _would_ask(self, use: Use, arguments: dict[str, Json]) -> bool:
        """Whether this call will need a person, as far as can be told: it decides what the client is shown, no more."""
        if use.offered is None:
            return False
        entry = (await self._box.listed(self._session, "tools")).get(use.offered.tool.id)
        if entry is None:
            return False
        decision = self._box.safety.decide(self._session, entry.tool, arguments, asks=entry.asks)
        return bool(decision.action == "ask")

    async def _call(self, use: Use, arguments: dict[str, Json]) -> tuple[Outcome | None, DockyardError | None]:
        """What the call gave, or why not."""
        try:
            async with asyncio.timeout_at(self._end):
                if use.offered is None:
                    return await self._offer.code.run(self, arguments), None
                return await self.use(use.offered, arguments, use.approval or None), None
        except TimeoutError:
            return None, ToolFailed(f"the time for all tools together, {self._bounds.seconds:g} s, is over")
        except DockyardError as error:
            return None, error
        except Exception:  # whatever a server made happen is a result, and the conversation goes on
            log.exception("tool %r failed", use.name)
            return None, ToolFailed(f"the call of {use.name!r} failed", hint="the server's log says why")

    async def use(self, offered: Offered, arguments: dict[str, Json], approval: str | None = None) -> Outcome:
        """One call, decided by the toolbox. Raises what it raises."""
        outcome: Outcome = await self._box.call(self._session, offered.tool.id, arguments, approval=approval)
        return outcome

    def spend(self) -> None:
        """Count a call that code made. Raises ToolFailed beyond the bound."""
        if self._calls >= self._bounds.calls:
            raise ToolFailed(f"no more than {self._bounds.calls} calls of tools are allowed")
        self._calls += 1


class _Round:
    """One answer of the model, taken apart: its own words, calls for the loop to run, calls for the client."""

    def __init__(self) -> None:
        self.finish: str | None = None
        self.usage: Usage | None = None
        self.others: dict[int, int] = {}
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._mine: dict[int, dict[str, Any]] = {}

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def reasoning(self) -> str:
        return "".join(self._thoughts)

    def mine(self) -> list[dict[str, Any]]:
        return list(self._mine.values())

    def add(self, chunk: Chunk, offer: Offer) -> Chunk | None:
        """Take a chunk; what is left of it for the client."""
        self._texts.append(chunk.text)
        self._thoughts.append(chunk.reasoning)
        if chunk.finish is not None:
            self.finish = chunk.finish
        if chunk.usage is not None:
            self.usage = chunk.usage
        calls = [delta for delta in chunk.tool_calls or () if isinstance(delta, dict)]
        left = [found for delta in calls if (found := self._sort(delta, offer)) is not None]
        if not (chunk.text or chunk.reasoning or left or chunk.logprobs or chunk.truncated):
            return None
        if not calls and chunk.finish is None and chunk.usage is None:
            return chunk
        return msgspec.structs.replace(chunk, finish=None, usage=None, tool_calls=left or None)

    def _sort(self, delta: dict[str, Any], offer: Offer) -> dict[str, Any] | None:
        """Keep a piece of a call that is the loop's; one of the client's is numbered among those."""
        number, function = delta.get("index", 0), delta.get("function") or {}
        if number not in self._mine and number not in self.others:
            if not offer.knows(function.get("name") or ""):
                self.others[number] = len(self.others)
            else:
                self._mine[number] = {"id": "", "function": {"name": "", "arguments": ""}}
        if number in self.others:
            return {**delta, "index": self.others[number]}
        held = self._mine[number]
        held["id"] = held["id"] or delta.get("id") or f"call_{number}"
        held["function"]["name"] += function.get("name") or ""
        held["function"]["arguments"] += function.get("arguments") or ""
        return None


def _read(use: Use) -> dict[str, Json]:
    """The arguments that the model wrote. Raises InvalidRequest, which the model is told."""
    try:
        found = msgspec.json.decode(use.arguments or "{}")
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"the arguments of {use.name!r} are not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidRequest(f"the arguments of {use.name!r} are not a JSON object")
    return found


def _call(use: Use) -> dict[str, Json]:
    return {"id": use.id, "type": "function", "function": {"name": use.function, "arguments": use.arguments or "{}"}}


def listing(tools: list[Offered]) -> str:
    """What the model is told of tools that were found: they are functions from the next round on."""
    if not tools:
        return "No tool was found; try other words."
    lines = [f"- {one.function}: {one.tool.description.partition('. ')[0][:300]}" for one in tools]
    return "\n".join(["These can be called now:", *lines])
