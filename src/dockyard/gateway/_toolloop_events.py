"""What a tool loop is made of: the tools that are offered, the uses a model makes of them, and the news of the loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from dockyard.errors import DockyardError, InvalidRequest
from dockyard.settings import Settings
from dockyard.tools.model import Approval, Outcome, Tool
from dockyard.types import Chunk, Json

SEARCH = "search_tools"
"""The function that finds tools which are not offered from the start."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How far a loop may go. ``tokens`` (0: any) are the model's own, over all rounds; ``result`` counts characters."""

    rounds: int = 16
    calls: int = 64
    tokens: int = 0
    seconds: float = 600.0
    result: int = 65_536

    @staticmethod
    def of(settings: Settings, calls: int | None = None) -> Bounds:
        """Those of the settings; ``calls`` may lower one of them."""
        most = settings.tools_calls
        return Bounds(
            rounds=settings.tools_rounds,
            calls=most if calls is None else min(calls, most),
            tokens=settings.tools_tokens,
            seconds=settings.tools_seconds,
            result=settings.tools_result,
        )


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as a model gets it: ``function`` is its name there, ``label`` and ``name`` are what clients call it."""

    label: str
    name: str
    function: str
    tool: Tool

    def described(self) -> dict[str, Json]:
        """The tool as a function in OpenAI's chat shape."""
        function = {"name": self.function, "description": self.tool.description, "parameters": self.tool.schema}
        return {"type": "function", "function": function}


class Offer:
    """The tools of one loop. Those that are ``deferred`` have to be found with ``search_tools`` first.

    ``taken`` are names of the client's own functions. Raises InvalidRequest where one is a tool's name too.
    """

    def __init__(
        self, tools: Sequence[Offered], deferred: Sequence[Offered] = (), *, taken: Iterable[str] = (), code: Any = None
    ) -> None:
        self._all = {one.function: one for one in (*tools, *deferred)}
        self._shown = {one.function: one for one in tools}
        self._deferred = {one.tool.id: one for one in deferred}
        self._index: Any = None
        self.code = code
        own = {SEARCH} if deferred else set()
        if code is not None:
            own.add(code.name)
        for name in taken:
            if name in self._all or name in own:
                raise InvalidRequest(f"two tools are called {name!r:.80}", param="tools", hint="rename the function")

    def functions(self) -> list[dict[str, Json]]:
        """What the model is offered now."""
        if self.code is not None:
            return [self.code.described(list(self._all.values()))]
        found = [one.described() for one in self._shown.values()]
        if self._deferred:
            found.append(searching(len(self._deferred)))
        return found

    def knows(self, name: str) -> bool:
        """Whether a call of this function is the loop's to run."""
        searched = bool(self._deferred) and name == SEARCH
        return name in self._all or searched or (self.code is not None and name == self.code.name)

    def get(self, name: str) -> Offered | None:
        return self._all.get(name)

    def by_label(self, label: str, name: str | None = None) -> list[Offered]:
        """The tools of a server, or the one of that name."""
        return [one for one in self._all.values() if one.label == label and name in (None, one.name)]

    def only(self, functions: set[str]) -> None:
        """Leave out everything but these."""
        self._shown = {name: one for name, one in self._shown.items() if name in functions}
        self._deferred = {id: one for id, one in self._deferred.items() if one.function in functions}
        self._all = {name: one for name, one in self._all.items() if name in functions}

    def find(self, query: str, count: int) -> list[Offered]:
        """The deferred tools that fit a query best; they are offered from now on."""
        from dockyard.tools.search import Index

        if self._index is None:
            self._index = Index([one.tool for one in self._deferred.values()])
        found = [self._deferred[tool.id] for tool in self._index.search(query, count)]
        self.load(one.function for one in found)
        return found

    def load(self, functions: Iterable[str]) -> None:
        """Offer deferred tools that were found before."""
        self._shown |= {name: self._all[name] for name in functions if name in self._all}


def searching(count: int) -> dict[str, Json]:
    """The function ``search_tools`` over so many tools."""
    schema = {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "What has to be done, in a few words."}},
        "required": ["query"],
    }
    text = f"Find tools for a task among {count} that are not listed here. Those that are found can be called then."
    return {"type": "function", "function": {"name": SEARCH, "description": text, "parameters": schema}}


class Use(msgspec.Struct, kw_only=True):
    """A call that a model wants: ``arguments`` is the text it wrote, ``offered`` the tool that it means, if any.

    ``approval`` is the id of a person's approval, once there is one.
    """

    id: str
    function: str
    arguments: str
    offered: Offered | None = None
    approval: str = ""

    @property
    def label(self) -> str:
        return self.offered.label if self.offered is not None else ""

    @property
    def name(self) -> str:
        return self.offered.name if self.offered is not None else self.function


class Said(msgspec.Struct, frozen=True):
    """Chunks for the client. Only the last one of a loop has a ``finish``, and the usage of all rounds."""

    chunks: list[Chunk]


class Began(msgspec.Struct, frozen=True):
    """A tool is being called."""

    use: Use


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """It answered, or failed: ``text`` is what the model is told. ``inner`` are calls that its code made."""

    use: Use
    text: str
    outcome: Outcome | None = None
    error: DockyardError | None = None


class Asks(msgspec.Struct, frozen=True):
    """A person must agree first; the loop ends with this round."""

    use: Use
    approval: Approval


class Found(msgspec.Struct, frozen=True):
    """A search for tools, and what it found."""

    use: Use
    query: str
    tools: list[Offered]


Event = Said | Began | Done | Asks | Found
