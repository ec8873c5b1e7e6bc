"""A stand-in for vLLM's server: begins processes below itself as vLLM does, and answers on the socket it is given.

It is installed into a folder that looks like an environment, so that the engine finds and runs it as the real one.
"""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

ARGUMENTS = sys.argv[1:]


def argument(name: str) -> str:
    return ARGUMENTS[ARGUMENTS.index(name) + 1]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def address_string(self) -> str:
        return "local"

    def allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {os.environ['VLLM_API_KEY']}":
            return True
        self.reply(401, {"error": "Unauthorized"})
        return False

    def reply(self, status: int, found: object) -> None:
        data = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if self.allowed():
            self.reply(200, {"version": "0.fake"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed():
            return
        with Path(os.environ["FAKE_LOG"]).open("a") as log:
            log.write(json.dumps([self.path, body]) + "\n")
        if self.path == "/tokenize":
            self.reply(200, {"tokens": [len(word) for word in body["prompt"].split()]})
        elif self.path == "/detokenize":
            self.reply(200, {"prompt": " ".join("x" * n for n in body["tokens"])})
        elif self.path == "/v1/embeddings":
            data = [{"index": n, "embedding": [float(len(text)), 0.5]} for n, text in enumerate(body["input"])]
            self.reply(200, {"data": data, "usage": {"prompt_tokens": 4}})
        else:
            self.chat(body)

    def chat(self, body: dict) -> None:
        text = body["messages"][-1]["content"]
        if text == "too long":
            self.reply(400, {"error": {"message": "maximum context length is 8 tokens", "code": 400}})
            return
        if text == "die":
            os._exit(7)
        words = f"{body['model']}: {text}".split() if text != "forever" else ["word"] * 100_000
        self.send_response(200)
        self.end_headers()
        for word in words:
            self.event({"choices": [{"index": 0, "delta": {"content": f"{word} "}}]})
            time.sleep(0.02 if text == "forever" else 0)
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self.event({"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": len(words)}})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def event(self, found: object) -> None:
        try:
            self.wfile.write(f"data: {json.dumps(found)}\n\n".encode())
        except BrokenPipeError:
            with Path(os.environ["FAKE_LOG"]).open("a") as log:
                log.write(json.dumps(["hung up", None]) + "\n")
            raise


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None: ...


if __name__ == "__main__":
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["VLLM_NO_USAGE_STATS"] == "1"
    Path(os.environ["FAKE_LOG"]).write_text(json.dumps(["arguments", ARGUMENTS]) + "\n")
    if "float16" in ARGUMENTS:
        sys.exit("ValueError: Error: float16 is not for this machine")
    sleep = "import time; time.sleep(600)"
    below = f"import subprocess,sys; subprocess.Popen([sys.executable, '-c', {sleep!r}]); {sleep}"
    subprocess.Popen([sys.executable, "-c", below], start_new_session=True)
    Server(argument("--uds"), Handler).serve_forever()
