"""A legacy MCP server that needs nothing but Python: for images that have no more."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import urllib.request
from pathlib import Path


def echo(text: str) -> str:
    return text


def environment() -> str:
    return "\n".join(f"{name}={value}" for name, value in sorted(os.environ.items()))


def write(path: str) -> str:
    Path(path).write_text("was here")
    return "written"


def status() -> str:
    return Path("/proc/self/status").read_text()


def dial(host: str, port: int) -> str:
    with socket.create_connection((host, port), timeout=5):
        return "connected"


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def bomb() -> str:
    count = 0
    for _ in range(2000):
        try:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
        except OSError:
            break
        count += 1
    return str(count)


def stay() -> str:
    """From now on neither the end of input nor a signal ends it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.environ["STAY"] = "1"
    return "staying"


TOOLS = {tool.__name__: tool for tool in (echo, environment, write, status, dial, fetch, bomb, stay)}


def answer(method: str, params: dict[str, object]) -> dict[str, object]:
    if method == "initialize":
        told = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}}
        return {**told, "serverInfo": {"name": "plain", "version": "1"}}
    if method == "tools/list":
        return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]}
    try:
        text, failed = TOOLS[str(params["name"])](**params.get("arguments", {})), False  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001 - whatever it was is the answer
        text, failed = f"{type(error).__name__}: {error}", True
    return {"content": [{"type": "text", "text": text}], "isError": failed}


for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    if asked["method"] in ("initialize", "tools/list", "tools/call"):
        told = {"result": answer(asked["method"], asked.get("params", {}))}
    else:
        told = {"error": {"code": -32601, "message": "Method not found"}}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **told}), flush=True)
while os.environ.get("STAY"):
    time.sleep(1)
