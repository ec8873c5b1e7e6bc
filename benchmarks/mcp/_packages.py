"""Five servers as people run them: packages of PyPI and npm, pinned, installed once into a home beside the peers."""

from __future__ import annotations

from pathlib import Path

from benchmarks._peers import PEERS
from dockyard.tools.model import Sandbox, Server

HOME = PEERS / "mcp-home"
PACKAGES = {
    "time": "pypi:mcp-server-time==2026.10.19",
    "git": "pypi:mcp-server-git==2026.10.19",
    "everything": "npm:@modelcontextprotocol/server-everything@2026.8.31",
    "files": "npm:@modelcontextprotocol/server-filesystem@2026.8.31",
    "memory": "npm:@modelcontextprotocol/server-memory@2026.8.31",
}


def server(name: str, folder: Path) -> Server:
    """Its entry; git and files may change what is in ``folder``."""
    writes = Sandbox(write=(str(folder),)) if name in ("git", "files") else Sandbox()
    return Server(
        name=name,
        kind="package",
        package=PACKAGES[name],
        command=(str(folder),) if name == "files" else (),
        env={"MEMORY_FILE_PATH": "/home/tool/memory.jsonl"} if name == "memory" else {},
        sandbox=writes,
    )
