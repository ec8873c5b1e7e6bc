"""A server of OpenAI's shape that says what a rule makes of a prompt, and suites on disk."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from dockyard import cli

Rule = Callable[[str], "str | int"]
"""The answer to a prompt; a number is an HTTP status to fail with, 0 hangs up."""


class Scripted:
    """What the server was asked, and where it is."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.url = ""


@contextmanager
def scripted(rule: Rule, *, seconds: float = 0.0) -> Iterator[Scripted]:
    """A server that knows chat and nothing else."""
    told = Scripted()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path != "/v1/chat/completions":
                return self._send(404, {"error": {"message": "no such path"}})
            prompt = body["messages"][-1]["content"]
            told.asked.append(prompt)
            time.sleep(seconds)
            said = rule(prompt)
            if said == 0:
                self.close_connection = True
                return None
            if isinstance(said, int):
                return self._send(said, {"error": {"message": "the endpoint failed"}})
            usage = {"prompt_tokens": 3, "completion_tokens": 2}
            message = {"role": "assistant", "content": said}
            choices = [{"index": n, "message": message, "finish_reason": "stop"} for n in range(body.get("n") or 1)]
            return self._send(200, {"choices": choices, "usage": usage})

        def do_GET(self) -> None:
            self._send(404, {"error": {"message": "no such path"}})

        def _send(self, status: int, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def suite(folder: Path, rows: Sequence[dict[str, Any]], **fields: Any) -> Path:
    """A suite's file, with its data beside it; YAML reads JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    about = {"name": "test", "data": "data.jsonl", "prompt": "{q}", "reference": "a", "scorers": ["exact-match"]}
    path = folder / "suite.yaml"
    path.write_text(json.dumps({key: value for key, value in {**about, **fields}.items() if value is not None}))
    return path


def dockyard(*words: str | Path) -> int:
    """A command line, in this process."""
    return cli.call([str(word) for word in words])
