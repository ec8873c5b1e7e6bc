"""Catalogues from files, URLs and registries, and the shelf that a home keeps them on."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.artifact.registry.memory import MemoryRegistry
from dockyard.artifact.store import Store
from dockyard.errors import Conflict, InvalidRequest, NotFound, SourceError, SourceUnreachable
from dockyard.settings import Settings
from dockyard.tools import catalog
from dockyard.tools.catalog import oci
from dockyard.tools.catalog.shelf import Catalogues
from dockyard.tools.model import Server

TEXT = "registry:\n  a: {image: x}\n  b: {type: odd}\n"
PAGES = {"/c.yaml": (200, TEXT.encode()), "/big": (200, b"#" * (33 << 20)), "/latin": (200, b"a: \xff\n")}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = PAGES.get(self.path, (404, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=str(tmp_path), starter="")


def test_a_file_a_url_and_a_text(site: str, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(TEXT)
    for source, named in ((str(path), str(path)), (f"{site}/c.yaml", f"{site}/c.yaml"), (TEXT, "")):
        found = catalog.load(source, settings)
        assert [(one.name, one.source) for one in found.servers] == [("a", named)]
        assert [problem.where for problem in found.problems] == ["b"]
    assert [server.name for server in catalog.read(str(path))] == ["a"]


def test_what_can_t_be_had_says_why(site: str, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="404"):
        catalog.load(f"{site}/none", settings)
    with pytest.raises(SourceError, match="more than"):
        catalog.load(f"{site}/big", settings)
    with pytest.raises(InvalidRequest, match=r"UTF-8 \(line 1\)"):
        catalog.load(f"{site}/latin", settings)
    with pytest.raises(InvalidRequest, match="not https"):
        catalog.load("http://example.com/c.yaml", settings)
    with pytest.raises(SourceUnreachable, match="offline"):
        catalog.load("https://example.com/c.yaml", Settings(home=str(tmp_path), offline=True))
    with pytest.raises(NotFound, match="no file"):
        catalog.load("none.yaml", settings)
    with pytest.raises(InvalidRequest, match=r"b \(line 2\): type 'odd'"):
        catalog.read("registry:\n  b: {type: odd}\n")


def test_catalogues_travel_through_a_registry(settings: Settings, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    entry = {"name": "clock", "type": "server", "image": "mcp/time@sha256:1"}
    data = json.dumps({"title": "T", "servers": [{"type": "image", "snapshot": {"server": entry}}]}).encode()
    with MemoryRegistry() as memory:
        name = f"{memory.host}/mcp/docker-mcp-catalog:latest"
        oci.push(store, name, data, oci.CATALOGUE, settings)
        found = catalog.load(f"oci://{name}", settings, Store(tmp_path / "other" / "store"))
    assert [server.image for server in found.servers] == ["mcp/time@sha256:1"]


def test_the_shelf_keeps_catalogues_and_finds_servers(tmp_path: Path) -> None:
    shelf = Catalogues(tmp_path)
    one, two = (
        catalog.parse("registry:\n  a: {image: x}\n"),
        catalog.parse("registry:\n  a: {image: y}\n  b: {image: z}"),
    )
    shelf.put("one", one, new=True)
    shelf.put("two", two)
    with pytest.raises(Conflict):
        shelf.put("one", two, new=True)
    assert (shelf.names(), shelf.get("one")) == (["one", "two"], one)
    assert shelf.find("b") == ("two", two.servers[1])
    assert shelf.find("one/a") == ("one", one.servers[0])
    with pytest.raises(Conflict, match="several"):
        shelf.find("a")
    shelf.add(Server(name="a", kind="process", command=("mine",)))
    assert shelf.find("a")[0] == "own"
    with pytest.raises(Conflict, match="already"):
        shelf.add(Server(name="a", kind="process"))
    with pytest.raises(NotFound, match="'bb'"):
        shelf.find("bb")
    shelf.drop("a")
    shelf.remove("two")
    assert shelf.find("a") == ("one", one.servers[0])
    for call in (lambda: shelf.get("two"), lambda: shelf.drop("zz"), lambda: shelf.remove("two")):
        with pytest.raises(NotFound):
            call()
    for name in ("../x", "", "A"):
        with pytest.raises(InvalidRequest):
            shelf.get(name)
