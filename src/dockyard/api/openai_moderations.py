"""``POST /v1/moderations``: what this server's guards, and the classifier of the extra ``guards``, say of a text.

The answer's ``model`` names who judged. OpenAI's own categories are all there, for clients that look them up; nobody
here judges them, which ``category_applied_input_types`` says with an empty list. Those that are judged come after them.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar.types import HTTPScope, Receive, Send

from dockyard.api import _openai
from dockyard.api._decode import BodyReader
from dockyard.api._further import Described, Routes
from dockyard.api._site import Site
from dockyard.api._wire import Headers, MethodNotAllowed, read_body, send_bytes, send_error
from dockyard.errors import DockyardError, EngineUnavailable, InvalidRequest, ModelNotFound, UnsupportedParameter
from dockyard.guards import Classifier, Guard, classifier
from dockyard.types import Json

MOST_INPUTS = 256
CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip
OPENAI_NAMES = ("omni-moderation-", "text-moderation-")
INSTALL = "pip install 'dockyard[guards]', or set `deny_patterns`"


class ModerationRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body: ``input`` is text, a list of texts (a result each), or content parts (one result)."""

    input: str | list[Json]
    model: str | None = None


class Moderations:
    """The endpoint. Nothing is generated, so a request takes no place in the queue."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._reader = BodyReader(ModerationRequest)

    async def __call__(self, scope: HTTPScope, headers: Headers, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed(f"{scope['path']} takes POST")
            await self._site.principal(headers, "infer")
            body = await read_body(receive, headers, self._site.settings.max_body, self._site.watchdog, task)
            asked, _ = self._reader.read(body)
            answer = await self._judged(texts(asked.input), asked.model)
        except DockyardError as error:
            await send_error(send, error)
            return
        await send_bytes(send, 200, msgspec.json.encode(answer), [(b"x-request-id", answer["id"].encode())])

    async def _judged(self, inputs: list[str], model: str | None) -> dict[str, Any]:
        assert self._site.gateway is not None
        guards = self._site.gateway.parts.guards
        found = await asyncio.to_thread(classifier)
        judges = [*([found.name] if found else []), *(f"guard:{guard.name}" for guard in guards)]
        if not judges:
            raise EngineUnavailable("nothing here judges texts", hint=INSTALL)
        if model is not None and model not in ("+".join(judges), *judges) and not model.startswith(OPENAI_NAMES):
            hint = f"leave it out, or name one of {', '.join(judges)}"
            raise ModelNotFound(f"{model!r} does not judge texts here", param="model", hint=hint)
        results = [await _result(text, found, guards) for text in inputs]
        return {"id": _openai.new_id("modr-"), "model": "+".join(judges), "results": results}


async def _result(text: str, found: Classifier | None, guards: tuple[Guard, ...]) -> dict[str, Any]:
    scores = dict.fromkeys(CATEGORIES, 0.0)
    judged = [*(found.categories if found else ()), *(guard.name for guard in guards)]
    scores.update(dict.fromkeys(judged, 0.0))
    hit: set[str] = set()
    if found is not None:
        flagged, seen = await asyncio.to_thread(found.judge, text)
        scores.update(seen)
        if flagged:
            hit.add(max(seen, key=lambda name: seen[name]))
    for guard in guards:
        if (await guard.check(text)).action != "pass":
            scores[guard.name] = 1.0
            hit.add(guard.name)
    return {
        "flagged": bool(hit),
        "categories": {name: name in hit for name in scores},
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] if name in judged else [] for name in scores},
    }


def texts(value: str | list[Json]) -> list[str]:
    """The texts to judge. Raises InvalidRequest, and UnsupportedParameter for what is not text."""
    if isinstance(value, str):
        return [value]
    if not value:
        raise InvalidRequest("'input' is an empty list", param="input")
    if len(value) > MOST_INPUTS:
        raise InvalidRequest(f"'input' holds {len(value)} texts; {MOST_INPUTS} is the most", param="input")
    if all(isinstance(one, str) for one in value):
        return value
    found = []
    for number, part in enumerate(value):
        at = f"input[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "image_url":
            raise UnsupportedParameter("nothing here judges images", param=f"{at}.image_url", hint="send text")
        if kind != "text" or not isinstance(part.get("text"), str):
            raise InvalidRequest(f"{at} is neither text nor a part with text", param=at)
        found.append(part["text"])
    return ["\n".join(found)]


def routes(site: Site) -> Routes:
    from dockyard.api._openai_endpoints import endpoints

    path = "/v1/moderations"
    described = Described(body=ModerationRequest, summary="Judge texts before anything is done with them", tag="OpenAI")
    return Routes(hot={path: endpoints(site)["/moderations"]}, described={path: described})
