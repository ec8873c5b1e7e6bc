"""Chats of OpenAI's dialect, which may have tools that the server runs: the client sees a plain answer."""

from __future__ import annotations

import asyncio
from fnmatch import fnmatchcase
from typing import Any

from litestar.types import Send

from dockyard.api._endpoint import Asked, Endpoint, Exchange, run_calls
from dockyard.api._site import Site
from dockyard.api.openai_chat import Chat, ChatAsked
from dockyard.gateway import Gateway


class ChatEndpoint(Endpoint):
    """``POST /v1/chat/completions``."""

    def __init__(self, site: Site) -> None:
        assert site.gateway is not None
        super().__init__(site.gateway, Chat(), site.watchdog)
        self._site = site

    def _exchange(self, asked: Asked, explain: bool, send: Send, task: asyncio.Task[Any]) -> Exchange:
        assert isinstance(asked, ChatAsked)
        profile = profile_of(self._site, asked)
        if not profile:
            return super()._exchange(asked, explain, send, task)
        return _WithTools(asked, self._site, profile, explain, send, task)


def profile_of(site: Site, asked: ChatAsked) -> str:
    """The profile whose tools a chat gets; empty: none. What the request says counts before the setting."""
    if asked.own is not None and asked.own.profile is not None:
        return asked.own.profile
    model = asked.calls[0].model
    patterns = site.settings.chat_tools
    return next((patterns[pattern] for pattern in patterns if fnmatchcase(model, pattern)), "")


class _WithTools(Exchange):
    def __init__(
        self, asked: ChatAsked, site: Site, profile: str, explain: bool, send: Send, task: asyncio.Task[Any]
    ) -> None:
        super().__init__(asked, explain, send, task, site.watchdog)
        self._site = site
        self._profile = profile
        self._code = asked.own is not None and asked.own.code

    async def _run(self, gateway: Gateway) -> Any:
        from dockyard.api._chat_tools import looped

        calls = self._asked.calls
        return await looped(self._site, lambda: run_calls(gateway, calls), calls, self._profile, self._code)
