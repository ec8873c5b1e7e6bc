"""The way to llama.cpp's server: what is read at once, and what may wait for the next look."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from dockyard.engines import _llama_http
from dockyard.engines._llama_http import Door

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
PROGRESS = b'data: {"choices":[{"delta":{"role":"assistant","content":null}}],"prompt_progress":{"total":9}}\n\n'
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n'
TOKEN = b'data: {"choices":[{"delta":{"content":"Once"}}]}\n\n'


@pytest.mark.parametrize("early", [[PROGRESS, ROLE], [ROLE], [b'data: {"content":"","prompt_progress":{}}\n\n'], []])
def test_the_first_token_waits_for_no_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, early: list[bytes]) -> None:
    monkeypatch.setattr(_llama_http, "PACE", 3600.0)
    path, seen, told = tmp_path / "sock", threading.Event(), []

    def receive(line: str | bytes) -> bool:
        told.append(line)
        if b"Once" in bytes(line if isinstance(line, bytes) else line.encode()):
            seen.set()
        return False

    def serve(server: socket.socket) -> None:
        link, _ = server.accept()
        with link:
            link.recv(1 << 16)
            for number, part in enumerate([HEAD, *early, TOKEN]):
                link.sendall(part)
                while number <= len(early) and len(told) < number:  # so that each is read by itself
                    seen.wait(0.001)
            if seen.wait(30):  # hanging up earlier would end the wait for the next look
                link.sendall(b"data: [DONE]\n\n")

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        serving = threading.Thread(target=serve, args=(server,))
        serving.start()
        Door(str(path), "key", "model").stream("/v1/chat/completions", b"{}", receive)
        serving.join()
    assert len(told) == len(early) + 1
