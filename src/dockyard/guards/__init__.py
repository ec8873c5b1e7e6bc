"""Checks on text that goes to a model or comes from one: the protocol of a guard, and the chooser.

A guard is one file of this package, or an entry point of group ``dockyard.guards``, that binds ``PLUGIN`` to a function
``(settings) -> Guard | None``; None means that the settings ask nothing of it.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from dockyard import plugins
from dockyard.errors import InvalidRequest, SettingsError
from dockyard.settings import Settings
from dockyard.types import Json, Verdict


class Guard(Protocol):
    """One check. ``holdback`` is how many characters a finding may span.

    That many characters of a streamed answer are withheld until more text has shown that no finding begins in them.
    """

    name: str
    holdback: int

    async def check(self, text: str, *, final: bool = True) -> Verdict:
        """What to do about ``text``; with ``final`` false more text may follow its last ``holdback`` characters."""
        ...


class Classifier(Protocol):
    """A model that says how likely a text is of each of its categories. Blocks; may be called from several threads."""

    name: str

    @property
    def categories(self) -> tuple[str, ...]: ...

    def judge(self, text: str) -> tuple[bool, dict[str, float]]:
        """Whether the text should be flagged, and the score of each category that is not nil, from 0 to 1."""
        ...


def classifier() -> Classifier | None:
    """The classifier that the extra ``guards`` installs; None without it. Loads it, once: half a second."""
    from dockyard.guards import _guardian

    return _guardian.load()


ROUTED = ("deny_patterns",)
"""Settings of guards that a route of the stack may add to."""


def for_route(settings: Settings, said: dict[str, Json], at: str) -> tuple[Guard, ...]:
    """The server's guards with what a route says under ``guards`` added. Raises InvalidRequest naming the key."""
    changes: dict[str, Json] = {}
    for name, value in said.items():
        if name not in ROUTED:
            raise InvalidRequest(
                f"{at}.{name}: there is no such guard", param=f"{at}.{name}", hint=f"there is: {', '.join(ROUTED)}"
            )
        try:
            found = msgspec.convert(value, tuple[str, ...])
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"{at}.{name}: {error}", param=f"{at}.{name}") from None
        changes[name] = (*getattr(settings, name), *found)
    return chosen(msgspec.structs.replace(settings, **changes))


def chosen(settings: Settings) -> tuple[Guard, ...]:
    """The guards that the settings ask for. Raises SettingsError if one can't be built: no guard fails open."""
    found = []
    for name, plugin in plugins.find("guards").items():
        if plugin.error is not None:
            raise SettingsError(f"guard {name!r} is broken: {plugin.error}", hint="remove the plug-in or repair it")
        guard = plugin.load()(settings)  # a plug-in of this kind is a factory
        if guard is not None:
            found.append(guard)
    return tuple(found)
