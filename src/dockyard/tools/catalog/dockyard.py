"""Our own catalogue: Docker's with ``format: dockyard``, further types and fields.

format: dockyard
registry:
  files:
    type: process
    command: [mcp-server-filesystem, /srv/docs]
    sandbox: {read: [/srv/docs], memory: 536870912}
    allowHosts: [api.example.com:443]
    labels: {"*": [private-data]}
    callSeconds: 30
  clock: {type: package, package: "pypi:mcp-server-time==2026.10.19"}
"""

from __future__ import annotations

from typing import Any

from dockyard.tools.catalog._entry import KINDS
from dockyard.tools.catalog.docker import Docker
from dockyard.tools.model import Server


class Dockyard(Docker):
    """Docker's format with all kinds of servers."""

    name = "dockyard"
    kinds = frozenset(KINDS.values())

    def claims(self, value: Any) -> bool:
        return isinstance(value, dict) and value.get("format") == "dockyard" and "registry" in value

    def refuses(self, server: Server) -> str | None:  # noqa: ARG002
        return None

    def head(self) -> dict[str, Any]:
        return {"format": "dockyard"}


PLUGIN = Dockyard()
