"""A small MCP server whose tools say what it can see and reach; the hostile ones do what they should not be able to."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server


def echo(text: str = "") -> str:
    return text


def environment() -> str:
    return "\n".join(f"{name}={value}" for name, value in sorted(os.environ.items()))


def read(path: str) -> str:
    return Path(path).expanduser().read_text(errors="replace")


def listing(path: str) -> str:
    return "\n".join(sorted(os.listdir(Path(path).expanduser())))


def write(path: str) -> str:
    Path(path).expanduser().write_text("was here")
    return "written"


def dial(host: str, port: int) -> str:
    with socket.create_connection((host, port), timeout=5):
        return "connected"


def unix(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as it:
        it.connect(path)
        return "connected"


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def hog(megabytes: int) -> str:
    held = [bytearray(os.urandom(1 << 20)) for _ in range(megabytes)]
    return str(len(held))


def bomb() -> str:
    """Fork until the kernel says no, each child living on."""
    count = 0
    for _ in range(2000):
        try:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
        except OSError:
            return f"{count}"
        count += 1
    return f"{count}"


def burn() -> str:
    """Keep short-lived processes busy, so that none of them alone uses much."""
    while True:
        subprocess.run([sys.executable, "-S", "-c", "for _ in range(4_000_000): pass"], check=True)


def daemon(name: str) -> str:
    """A process in a session of its own that outlives its parent unless it is hunted down."""
    script = (
        f"import os,time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\ntime.sleep(600) # {name}"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    return "left"


def raw(kind: str) -> str:
    """Bytes on stdout that are no protocol."""
    block = {"text": b"hello, I print\n", "bytes": b"\xff\xfe\x00nonsense\n", "line": b"x" * (100 << 20) + b"\n"}[kind]
    sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()
    return "printed"


def complain(text: str) -> str:
    print(text, file=sys.stderr, flush=True)
    return "told"


def die() -> str:
    print("now I am gone", file=sys.stderr, flush=True)
    os._exit(7)


TOOLS = [echo, environment, read, listing, write, dial, unix, fetch, hog, bomb, burn, daemon, raw, complain, die]
BY_NAME = {tool.__name__: tool for tool in TOOLS}


async def listed(_context: Any, _params: Any) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[types.Tool(name=name, input_schema={"type": "object"}) for name in BY_NAME])


async def called(_context: Any, params: Any) -> types.CallToolResult:
    try:
        text = BY_NAME[params.name](**(params.arguments or {}))
    except Exception as error:  # noqa: BLE001 - whatever it was is the answer
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=f"{type(error).__name__}: {error}")], is_error=True
        )
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


async def main() -> None:
    server = Server("tool-server", on_list_tools=listed, on_call_tool=called)
    async with stdio_server() as (read_stream, write_stream):
        await server.run(read_stream, write_stream, server.create_initialization_options())


if __name__ == "__main__":
    asyncio.run(main())
