"""What starts tool servers, one kind a file: the protocol is ``model.Runner``, ``PLUGIN`` its class.

A runner is made with the settings. Its ``connect`` yields ``sdk.Transport`` (or a pair of streams), and leaving it,
by whatever way, leaves no process, container, folder or control group. Further kinds come as entry points of the group
``dockyard.tools.runners``.
"""

from __future__ import annotations

from dockyard.errors import EngineUnavailable, InvalidRequest
from dockyard.plugins import find
from dockyard.settings import Settings
from dockyard.tools.model import Runner

KIND = "tools.runners"


def kinds() -> list[str]:
    """Names of all kinds of server that can be declared."""
    return list(find(KIND))


def runner(kind: str, settings: Settings) -> Runner:
    """The runner of a kind of server. Raises InvalidRequest for an unknown kind, EngineUnavailable for a broken one."""
    plugin = find(KIND).get(kind)
    if plugin is None:
        known = ", ".join(kinds())
        raise InvalidRequest(f"there is no kind of tool server {kind!r}", param="kind", hint=f"one of {known}")
    if plugin.error:
        raise EngineUnavailable(f"tool servers of kind {kind!r} can't run: {plugin.error}", hint=_hint(plugin.error))
    made: Runner = plugin.load()(settings)  # a plug-in of this kind is a factory
    return made


def _hint(error: str) -> str | None:
    return "pip install 'dockyard[mcp]'" if "No module named 'mcp" in error else None
