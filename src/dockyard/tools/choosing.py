"""Changes of a profile: tools let through and kept back, questions to a person, configuration. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from dockyard.errors import InvalidRequest, NotFound
from dockyard.tools.model import Enabled, Profile, Server
from dockyard.tools.profiles import enabled, with_enabled
from dockyard.types import Json


def with_tools(one: Enabled, let: list[str], keep: list[str], known: list[str]) -> Enabled:
    """The server with further tools let through and others kept back; ``*`` is all of them.

    ``known`` are its tools as far as anybody saw them: to keep back some of all, they must be. Raises InvalidRequest.
    """
    chosen = one.tools
    if "*" in let:
        chosen, let = None, []
    if "*" in keep:
        chosen, keep = (), []
    if keep:
        if chosen is None:
            if not known:
                raise InvalidRequest(
                    f"what tools server {one.server.name!r} has is not known yet",
                    param="tools",
                    hint="`dockyard mcp tools ls` asks it; or say which tools to let through",
                )
            chosen = tuple(known)
        unknown = [tool for tool in keep if tool not in chosen]
        if unknown:
            raise InvalidRequest(f"server {one.server.name!r} has no tool {unknown[0]!r} that is let through")
        chosen = tuple(tool for tool in chosen if tool not in keep)
    if let and chosen is not None:
        chosen = tuple(dict.fromkeys((*chosen, *let)))
    return msgspec.structs.replace(one, tools=chosen)


def with_value(one: Enabled, key: str, value: Json, *, remove: bool = False) -> Enabled:
    """The server with a piece of configuration set, at a dotted key, or taken away. Raises InvalidRequest, NotFound."""
    *outer, last = key.split(".")
    config = msgspec.json.decode(msgspec.json.encode(one.server.config))
    place = config
    for part in outer:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise InvalidRequest(f"{key!r}: {part!r} of server {one.server.name!r} is a value, not a table", param=key)
    if not last or any(not part for part in outer):
        raise InvalidRequest(f"{key!r} is no key of configuration", param="config")
    if remove:
        if last not in place:
            raise NotFound(f"server {one.server.name!r} has no configuration {key!r}", param="config")
        del place[last]
    else:
        place[last] = value
    return msgspec.structs.replace(one, server=msgspec.structs.replace(one.server, config=config))


def split(text: str, profile: Profile) -> tuple[Enabled, str]:
    """``server.rest`` for a server of the profile; names may have dots, so the longest that fits counts.

    Raises InvalidRequest, NotFound.
    """
    fits = [one for one in profile.servers if text.startswith(f"{one.server.name}.")]
    if not fits:
        name, mark, rest = text.partition(".")
        if not mark or not rest:
            raise InvalidRequest(f"{text!r} is not SERVER.NAME", param="server")
        return enabled(profile, name), rest
    one = max(fits, key=lambda one: len(one.server.name))
    return one, text[len(one.server.name) + 1 :]


def choose(
    profile: Profile,
    *,
    enable: list[str],
    disable: list[str],
    ask: list[str],
    no_ask: list[str],
    known: Callable[[str], list[str]],
) -> Profile:
    """The profile with tools let through, kept back, or asked about; each is ``server.tool`` or ``server.*``.

    ``known`` gives a server's tools as far as they were seen. Raises InvalidRequest, NotFound.
    """
    for texts, let in ((enable, True), (disable, False)):
        for text in texts:
            one, tool = split(text, profile)
            seen = known(one.server.name) or _declared(one.server)
            chosen = with_tools(one, [tool] if let else [], [] if let else [tool], seen)
            profile = with_enabled(profile, chosen)
    for texts, asks in ((ask, True), (no_ask, False)):
        for text in texts:
            one, tool = split(text, profile)
            left = tuple(each for each in one.approve if each != tool and not (tool == "*" and not asks))
            approve = (*left, tool) if asks else left
            profile = with_enabled(profile, msgspec.structs.replace(one, approve=approve))
    return profile


def configure(profile: Profile, values: dict[str, Json], remove: list[str]) -> Profile:
    """The profile with configuration set and taken away, by ``server.key``. Raises InvalidRequest, NotFound."""
    for text, value in values.items():
        one, key = split(text, profile)
        profile = with_enabled(profile, with_value(one, key, value))
    for text in remove:
        one, key = split(text, profile)
        profile = with_enabled(profile, with_value(one, key, None, remove=True))
    return profile


def look_up(profile: Profile, text: str) -> Json:
    """A piece of configuration, by ``server.key``. Raises InvalidRequest, NotFound."""
    one, key = split(text, profile)
    value: Json = one.server.config
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise NotFound(f"server {one.server.name!r} has no configuration {key!r}", param="config")
        value = value[part]
    return value


def _declared(server: Server) -> list[str]:
    """The tools that a catalogue says a server has."""
    docker = server.extra.get("docker")
    tools = docker.get("tools") if isinstance(docker, dict) else None
    names = [one.get("name") for one in tools if isinstance(one, dict)] if isinstance(tools, list) else []
    return [name for name in names if isinstance(name, str)]
