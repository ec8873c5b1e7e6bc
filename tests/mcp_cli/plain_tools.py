"""A tool server in forty lines of plain Python: `sums`, `shout`, and whatever words it was started with."""

import json
import sys

WORDS = sys.argv[1] if len(sys.argv) > 1 else "Shouts"
NUMBERS = {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]}
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}}
TOOLS = [
    {"name": "sum", "description": "Adds", "inputSchema": NUMBERS},
    {"name": "shout", "description": WORDS, "inputSchema": TEXT},
]


def result(method: str, params: dict) -> dict | None:
    if method == "initialize":
        info = {"name": "plain", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call":
        given = params.get("arguments") or {}
        if params["name"] == "sum":
            return {"content": [{"type": "text", "text": str(given["a"] + given["b"])}]}
        text = given.get("text")
        return {"content": [{"type": "text", "text": str(text).upper()}], "isError": text is None}
    return None


for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    found = result(asked["method"], asked.get("params") or {})
    body = {"result": found} if found is not None else {"error": {"code": -32601, "message": "no such method"}}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **body}), flush=True)
