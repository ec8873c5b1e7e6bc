"""Search asks every place and says which it could not reach."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hugging_face import Hub

from dockyard.artifact.registry.memory import MemoryRegistry
from dockyard.artifact.search import search
from dockyard.settings import Settings

ROWS = [
    {"name": "smollm2", "namespace": "ai", "description": "Tiny", "pull_count": 10, "star_count": 1},
    {"name": "gemma3", "namespace": "ai", "description": "Not smol", "pull_count": 99, "star_count": 2},
    {"name": "llama3", "namespace": "ai", "description": None, "pull_count": 50},
]


@pytest.fixture
def docker_hub() -> Iterator[str]:
    class Answers(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            assert self.path.startswith("/v2/repositories/ai/?")
            body = json.dumps({"count": 3, "results": ROWS}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_all_places_at_once(docker_hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub({"Org/SmolThing": {}, "Org/Other": {}}) as face, MemoryRegistry() as memory:
        monkeypatch.setenv("HF_ENDPOINT", face.endpoint)
        memory.add_blob("team/smol", b"x")
        memory.add_blob("team/big", b"x")
        found = search("smol", Settings(hubs=(memory.host, "127.0.0.1:9")), docker_hub=docker_hub)
        assert [hit.reference for hit in found.hits] == [
            "ai/gemma3",
            "ai/smollm2",
            "hf.co/Org/SmolThing",
            f"{memory.host}/team/smol",
        ]
    assert found.hits[0].pulls == 99
    assert list(found.unreachable) == ["127.0.0.1:9"]
    assert "refused" in found.unreachable["127.0.0.1:9"]


def test_offline_asks_only_this_machine() -> None:
    with MemoryRegistry() as memory:
        memory.add_blob("team/smol", b"x")
        found = search("", Settings(hubs=(memory.host,), offline=True))
        assert [hit.reference for hit in found.hits] == [f"{memory.host}/team/smol"]
    assert sorted(found.unreachable) == ["docker hub", "hugging face"]


def test_nonsense_from_a_place_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with MemoryRegistry() as memory:
        memory.fail(match="/api/models", status=500)
        monkeypatch.setenv("HF_ENDPOINT", f"http://{memory.host}")
        found = search("x", Settings(), docker_hub=f"http://{memory.host}")
    assert found.unreachable["hugging face"].endswith("answered 500")
    assert found.unreachable["docker hub"].endswith("answered 404")
