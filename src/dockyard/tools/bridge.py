"""Between the protocol's two eras: what a server needs to know in the middle of a call, and how its client is asked.

    client   server   what happens
    legacy   legacy   the server asks, the gateway passes the question on and the answer back
    modern   modern   "input_required" is passed on raw, and so is the client's next try
    legacy   modern   the gateway asks the client, and tries again itself
    modern   legacy   the live call is parked; the client gets "input_required" with a handle, and its next try goes on

``Asking`` is the caller of one call, ``exchange`` does the first three, ``Parking`` the last.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from dockyard.errors import InvalidRequest, Overloaded
from dockyard.tools.model import ToolFailed
from dockyard.types import Json

Ask = Callable[[str, Json], Awaitable[Json]]
Say = Callable[..., Awaitable[None]]

ASK_SECONDS = 600.0
"""How long a person may think."""
MOST_ROUNDS = 10
MOST_PARKED = 64
MOST_PARKED_EACH = 8
HANDLE = "dockyard1."

MISSING_CAPABILITY = -32021
NEEDS = {"sampling/createMessage": "sampling", "elicitation/create": "elicitation", "roots/list": "roots"}
"""What a client must have declared to be asked."""


class Asking(msgspec.Struct, kw_only=True, eq=False):
    """Who waits for a call, and how to reach them while it lasts.

    ``key`` tells callers apart whose questions must not be mixed up. ``relays``: a modern client, which takes
    "input_required" itself; ``responses`` and ``state`` are what it sends with another try. ``capabilities`` are the
    client's. ``on_log`` gets the params of ``notifications/message`` of at least ``level``.
    """

    key: str = ""
    ask: Ask | None = None
    relays: bool = False
    capabilities: dict[str, Json] = {}
    responses: dict[str, Json] | None = None
    state: str | None = None
    level: str | None = None
    on_progress: Say | None = None
    on_log: Say | None = None
    limit: asyncio.Timeout | None = None
    lacking: ToolFailed | None = None
    """Why this client could not be asked, once a server wanted to."""
    said: list[Awaitable[None]] = []
    saying: Any = None

    async def put(self, method: str, params: Json) -> Json:
        """Ask; the call's own time stands still meanwhile. Raises Refusal if the client can't be asked for this."""
        if self.ask is None or NEEDS.get(method) not in self.capabilities:
            self.lacking = unable(method)
            raise self.lacking
        loop = asyncio.get_running_loop()
        left = None
        if self.limit is not None and (end := self.limit.when()) is not None:
            left = end - loop.time()
            self.limit.reschedule(None)
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await self.ask(method, params)
        except TimeoutError:
            raise ToolFailed(f"nobody answered {method!r} within {ASK_SECONDS:.0f} s") from None
        finally:
            if self.limit is not None and left is not None and not self.limit.expired():
                self.limit.reschedule(loop.time() + left)

    def say(self, message: Awaitable[None]) -> None:
        """Send something to the client, in order, while the call goes on."""
        self.said.append(message)
        if self.saying is None or self.saying.done():
            self.saying = asyncio.create_task(self._speak())

    async def _speak(self) -> None:
        while self.said:
            await self.said.pop(0)

    async def flush(self) -> None:
        """Everything that was said before the answer has left before the answer."""
        await asyncio.sleep(0)
        if self.saying is not None and not self.saying.done():
            await asyncio.wait({self.saying}, timeout=5)

    async def progress(self, done: float, total: float | None, text: str | None) -> None:
        if self.on_progress is not None:
            self.say(self.on_progress(done, total, text))


def unable(method: str) -> ToolFailed:
    """The protocol's error for a client that lacks what a server needs, naming it."""
    from dockyard.tools.sdk import Refusal

    need = NEEDS.get(method, method)
    return Refusal(
        f"the server needs a client with the capability {need!r}",
        rpc=MISSING_CAPABILITY,
        data={"requiredCapabilities": {need: {}}},
    )


async def exchange(link: Any, method: str, params: dict[str, Json], asking: Asking, seconds: float) -> dict[str, Json]:
    """One request to a server, with all that it asks on the way. Raises ToolFailed and its kinds."""
    asked = dict(params)
    if link.era == "modern" and asking.relays:
        if asking.responses is not None:
            asked["inputResponses"] = asking.responses
        if asking.state is not None:
            asked["requestState"] = asking.state
    try:
        async with asyncio.timeout(seconds) as asking.limit:
            for _ in range(MOST_ROUNDS):
                result: dict[str, Json] = await link.request(
                    method,
                    asked,
                    seconds=None,
                    on_progress=asking.progress if asking.on_progress is not None else None,
                    capabilities=asking.capabilities,
                    level=asking.level,
                )
                if result.get("resultType") != "input_required" or asking.relays or link.era == "legacy":
                    if asking.relays:
                        _may_ask(result, asking)
                    await asking.flush()
                    return result
                asked = {**params, **await _answers(result, asking)}
    except TimeoutError:
        raise ToolFailed(f"server {link.name!r} did not answer {method!r} within {seconds:g} s") from None
    finally:
        asking.limit = None
    raise ToolFailed(f"server {link.name!r} asked for more input {MOST_ROUNDS} times over")


def _may_ask(result: dict[str, Json], asking: Asking) -> None:
    """Raises Refusal if a server wants of a client what it did not declare."""
    if asking.lacking is not None:
        raise asking.lacking
    wanted = result.get("inputRequests")
    if result.get("resultType") == "input_required" and isinstance(wanted, dict):
        for one in wanted.values():
            method = one.get("method") if isinstance(one, dict) else None
            if NEEDS.get(str(method)) not in asking.capabilities:
                raise unable(str(method))


async def _answers(result: dict[str, Json], asking: Asking) -> dict[str, Json]:
    """Ask the client everything that a modern server wants to know, and make the fields of the next try of it."""
    wanted = result.get("inputRequests")
    again: dict[str, Json] = {}
    if "requestState" in result:
        again["requestState"] = result["requestState"]
    if not isinstance(wanted, dict) or not wanted:
        await asyncio.sleep(0.1)  # only time is wanted
        return again
    names, questions = [], []
    for name, one in wanted.items():
        method = one.get("method") if isinstance(one, dict) else None
        if method not in NEEDS:
            raise ToolFailed(f"the server asks for {str(method)[:60]!r}, which no client knows")
        names.append(name)
        questions.append(asking.put(method, one.get("params") or {}))
    again["inputResponses"] = dict(zip(names, await asyncio.gather(*questions), strict=True))
    return again


class Parked(msgspec.Struct, kw_only=True, eq=False):
    """A live call that waits for its client's next try."""

    who: str
    what: str
    asking: Asking
    work: asyncio.Task[dict[str, Json]]
    questions: dict[str, tuple[str, Json, asyncio.Future[Json]]] = {}
    arrived: asyncio.Event
    expires: float = 0.0
    count: int = 0


class Parking:
    """Calls of modern clients to legacy servers, which stay open while their client is asked."""

    def __init__(self, seconds: float = ASK_SECONDS, most: int = MOST_PARKED) -> None:
        self._seconds = seconds
        self._most = most
        self._parked: dict[str, Parked] = {}
        self._open: set[Parked] = set()

    def __len__(self) -> int:
        return len(self._parked)

    async def begin(
        self, who: str, request: Json, asking: Asking, work: Callable[[], Awaitable[dict[str, Json]]]
    ) -> dict[str, Json]:
        """The result of ``work``, or "input_required" with a handle when its server asks something.

        ``who`` and ``request`` are bound to the handle: the next try must be theirs.
        """

        async def run() -> dict[str, Json]:
            return await work()

        parked = Parked(
            who=who, what=_digest(request), asking=asking, work=asyncio.create_task(run()), arrived=asyncio.Event()
        )
        asking.ask = lambda method, params: self._question(parked, method, params)
        self._open.add(parked)
        parked.work.add_done_callback(lambda _: self._open.discard(parked))
        return await self._next(parked)

    async def resume(self, who: str, request: Json, asking: Asking) -> dict[str, Json]:
        """Go on with a parked call. Raises InvalidRequest for a handle that is not this caller's, or no longer."""
        parked = self._parked.get(asking.state or "")
        if parked is None or parked.who != who or parked.what != _digest(request):
            raise InvalidRequest(
                "requestState is unknown, expired, or of another request", param="requestState", hint="call again"
            )
        del self._parked[asking.state or ""]
        parked.asking.on_progress, parked.asking.on_log = asking.on_progress, asking.on_log
        parked.asking.level = asking.level
        given = asking.responses or {}
        for name in [name for name in parked.questions if name in given]:
            _, _, answer = parked.questions.pop(name)
            if not answer.done():
                answer.set_result(given[name])
        return await self._next(parked)

    async def _question(self, parked: Parked, method: str, params: Json) -> Json:
        parked.count += 1
        name = f"q{parked.count}"
        answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        parked.questions[name] = (method, params, answer)
        parked.arrived.set()
        return await answer

    async def _next(self, parked: Parked) -> dict[str, Json]:
        arrival = asyncio.create_task(parked.arrived.wait())
        try:
            if not parked.questions:
                await asyncio.wait({parked.work, arrival}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            parked.work.cancel()
            raise
        finally:
            arrival.cancel()
        if parked.work.done():
            return parked.work.result()
        parked.arrived.clear()
        return self._park(parked)

    def _park(self, parked: Parked) -> dict[str, Json]:
        loop = asyncio.get_running_loop()
        mine = sum(one.who == parked.who for one in self._parked.values())
        if len(self._parked) >= self._most or mine >= MOST_PARKED_EACH:
            parked.work.cancel()
            raise Overloaded("too many calls wait for answers of their clients", retry_after=30)
        handle = HANDLE + secrets.token_urlsafe(32)
        self._parked[handle] = parked
        parked.expires = loop.time() + self._seconds
        loop.call_later(self._seconds, self._expire, handle)
        return {
            "resultType": "input_required",
            "inputRequests": {
                name: {"method": method, "params": params} for name, (method, params, _) in parked.questions.items()
            },
            "requestState": handle,
        }

    def _expire(self, handle: str) -> None:
        parked = self._parked.pop(handle, None)
        if parked is not None:
            parked.work.cancel()

    async def close(self) -> None:
        self._parked.clear()
        left = [parked.work for parked in self._open]
        for work in left:
            work.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _digest(request: Json) -> str:
    return hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()
