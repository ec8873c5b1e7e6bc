"""Shows the prompt and the answer to the guards.

A blocked prompt is a Blocked error. A blocked answer ends with ``finish="content_filter"``, and so does one that a
guard would rewrite, since part of it may have left. Chunks of a streamed answer are withheld until as much text follows
them as a guard needs, so that nothing leaves that a later character condemns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from dockyard.errors import Blocked
from dockyard.gateway._parts import Answer, Chunks, Inbound, Outbound, Parts, aclose
from dockyard.guards import Guard
from dockyard.types import Call, Chunk, Json, Message, Request, Usage

BINARY = frozenset({"image_url", "input_audio", "file", "video_url"})


def inbound(parts: Parts) -> Inbound:
    server = parts.guards

    async def screen(call: Call) -> Answer | None:
        guards = server if call.guards is None else call.guards
        if not guards:
            return None
        request = call.request
        if isinstance(request.prompt, list) or any(isinstance(one, list) for one in request.inputs):
            param = "prompt" if isinstance(request.prompt, list) else "input"
            raise Blocked("token ids can't be screened", param=param, hint="send text")
        changed = await _changed(guards, request)
        for text in _strings([request.extra, call.prompt.variables if call.prompt is not None else None]):
            await _pass(guards, text)
        if changed != {name: getattr(request, name) for name in changed}:
            call.request = msgspec.structs.replace(request, **changed)
        return None

    return screen


async def _changed(guards: tuple[Guard, ...], request: Request) -> dict[str, Any]:
    """The fields of a request that hold text, as the guards let it pass."""
    found: dict[str, Any] = {}
    if request.messages is not None:
        found["messages"] = tuple([await _message(guards, one) for one in request.messages])
    for name in ("prompt", "suffix", "query"):
        text = getattr(request, name)
        if text is not None:
            found[name] = await _pass(guards, text)
    if request.inputs:
        found["inputs"] = tuple([await _pass(guards, str(one)) for one in request.inputs])
    return found


async def _message(guards: tuple[Guard, ...], message: Message) -> Message:
    content = message.content
    if isinstance(content, str):
        passed: str | list[Json] | None = await _pass(guards, content)
        if passed != content:
            message = msgspec.structs.replace(message, content=passed)
    elif content is not None:
        parts = []
        for part in content:
            text = part.get("text") if isinstance(part, dict) else None
            parts.append({**part, "text": await _pass(guards, text)} if isinstance(text, str) else part)
        message = msgspec.structs.replace(message, content=parts)
        await _pass(guards, "".join(text for part in parts if isinstance(text := part.get("text"), str)))
    for text in _strings([message.tool_calls, message.name, message.reasoning_content]):
        await _pass(guards, text)
    return message


async def _pass(guards: tuple[Guard, ...], text: str) -> str:
    for guard in guards:
        verdict = await guard.check(text)
        if verdict.action == "block":
            raise Blocked(f"guard {guard.name!r} refused the prompt: {verdict.reason}", param="messages")
        if verdict.action == "replace" and verdict.text is not None:
            text = verdict.text
    return text


def _strings(value: Json) -> Iterator[str]:
    """All text inside JSON, but not the payload of images and sounds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in BINARY:
                yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def outbound(parts: Parts) -> Outbound:
    server = parts.guards

    def screen(call: Call, chunks: Chunks) -> Chunks:
        guards = server if call.guards is None else call.guards
        return _screened(guards, call, chunks) if guards else chunks

    return screen


async def _screened(guards: tuple[Guard, ...], call: Call, chunks: Chunks) -> Chunks:
    choices = {index: Held(guards, index) for index in range(call.request.sampling.n)}
    try:
        async for batch in chunks:
            out: list[Chunk] = []
            for chunk in batch:
                out += await choices.setdefault(chunk.index, Held(guards, chunk.index)).add(chunk)
            if all(held.blocked for held in choices.values()):
                # Nobody will read the rest, so the engine can stop; what it would have counted is counted here.
                taken = Usage(completion_tokens=sum(held.seen for held in choices.values()))
                yield [*out, Chunk(usage=taken)]
                return
            if out:
                yield out
        if rest := [chunk for held in choices.values() for chunk in await held.flush()]:
            yield rest
    finally:
        await aclose(chunks)


class Held:
    """The end of one choice that may not leave yet. Text, reasoning and tool calls are screened each by itself.

    ``context`` is the tail of what has left: a guard may need to see what a finding leans on.
    """

    def __init__(self, guards: tuple[Guard, ...], index: int) -> None:
        self.blocked = False
        self._guards = guards
        self._index = index
        self._reach = max(guard.holdback for guard in guards)
        self._chunks: list[Chunk] = []
        self._context = {"text": "", "reasoning": ""}
        self._calls: list[Any] = []
        self.seen = 0

    async def add(self, chunk: Chunk) -> list[Chunk]:
        """Take a chunk; the chunks that may leave now. After a block: only the notice of it, once."""
        if self.blocked:
            return [] if chunk.usage is None else [Chunk(index=self._index, usage=chunk.usage)]
        self.seen += 1
        self._chunks.append(chunk)
        if chunk.tool_calls:
            self._calls += chunk.tool_calls
        if chunk.finish is not None or chunk.usage is not None:
            return await self.flush()
        return self._stop() if await self._condemned(final=False) else self._released()

    async def flush(self) -> list[Chunk]:
        """No more text will come: decide about all that is held."""
        if self.blocked or not self._chunks:
            return []
        if await self._condemned(final=True):
            return self._stop()
        done, self._chunks = self._chunks, []
        return done

    async def _condemned(self, *, final: bool) -> bool:
        texts = [
            context + "".join(getattr(chunk, field) for chunk in self._chunks)
            for field, context in self._context.items()
        ]
        if final and self._calls:
            texts.append(_joined(self._calls))
        for text in filter(None, texts):
            for guard in self._guards:
                if (await guard.check(text, final=final)).action != "pass":
                    return True
        return False

    def _released(self) -> list[Chunk]:
        if self._calls:
            return []  # a tool call is of use only when it is whole, and is screened then
        after = {field: sum(len(getattr(chunk, field)) for chunk in self._chunks) for field in self._context}
        count = 0
        for chunk in self._chunks:
            left = {field: after[field] - len(getattr(chunk, field)) for field in after}
            if any(getattr(chunk, field) and left[field] < self._reach for field in after):
                break
            after, count = left, count + 1
        done, self._chunks = self._chunks[:count], self._chunks[count:]
        for field in self._context:
            gone = self._context[field] + "".join(getattr(chunk, field) for chunk in done)
            self._context[field] = gone[-self._reach :]
        return done

    def _stop(self) -> list[Chunk]:
        self.blocked = True
        self._chunks = []
        usage = Usage(completion_tokens=self.seen)
        return [Chunk(index=self._index, finish="content_filter", usage=usage)]


def _joined(calls: list[Any]) -> str:
    """The names and the put-together arguments of streamed tool calls."""
    pieces: dict[tuple[Any, str], str] = {}
    for position, call in enumerate(calls):
        if isinstance(call, dict):
            for field, text in (call.get("function") or {}).items():
                key = call.get("index", position), field
                pieces[key] = pieces.get(key, "") + str(text or "")
    return "\n".join(pieces.values())
