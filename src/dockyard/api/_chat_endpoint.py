"""Chats, which may have tools that the server runs: the client sees a plain answer, in whichever dialect."""

from __future__ import annotations

import asyncio
from fnmatch import fnmatchcase
from typing import Any

from litestar.types import Send

from dockyard.api._endpoint import OPENAI, Asked, Dialect, Endpoint, Exchange, Style, run_calls
from dockyard.api._site import Site
from dockyard.api.openai_chat import Chat, ChatAsked, Own
from dockyard.gateway import Gateway


class ChatEndpoint(Endpoint):
    """A chat's path; ``POST /v1/chat/completions`` where no other dialect is given."""

    def __init__(self, site: Site, dialect: Dialect | None = None, style: Style = OPENAI) -> None:
        assert site.gateway is not None
        super().__init__(site.gateway, dialect or Chat(), site.watchdog, style)
        self._site = site

    def _exchange(self, asked: Asked, explain: bool, send: Send, task: asyncio.Task[Any]) -> Exchange:
        own = asked.own if isinstance(asked, ChatAsked) else None
        profile = profile_of(self._site, asked.calls[0].model, own)
        if not profile:
            return super()._exchange(asked, explain, send, task)
        found = _WithTools(asked, explain, send, task, self._site.watchdog, self._style)
        return found.given(self._site, profile, code=own is not None and own.code)


def profile_of(site: Site, model: str, own: Own | None = None) -> str:
    """The profile whose tools a chat gets; empty: none. What the request says counts before its route, and that
    before the setting."""
    if own is not None and own.profile is not None:
        return own.profile
    if (route := site.stack.routes.get(model)) is not None and route.tools:
        return route.tools
    patterns = site.settings.chat_tools
    return next((patterns[pattern] for pattern in patterns if fnmatchcase(model, pattern)), "")


class _WithTools(Exchange):
    _site: Site
    _profile: str
    _code: bool

    def given(self, site: Site, profile: str, *, code: bool) -> _WithTools:
        self._site, self._profile, self._code = site, profile, code
        return self

    async def _run(self, gateway: Gateway) -> Any:
        from dockyard.api._chat_tools import looped

        calls = self._asked.calls
        return await looped(self._site, lambda: run_calls(gateway, calls), calls, self._profile, self._code)
