"""A real server on a real socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Serving, command, open_files, serving, until

from dockyard.api import server
from dockyard.errors import SettingsError
from dockyard.settings import Settings

LONG = " ".join(["word"] * 400)


def ask(text: str = "hello there", **fields: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": text}], **fields}


def raw_chat(body: dict[str, Any], **headers: str) -> bytes:
    data = json.dumps(body).encode()
    lines = [f"{name}: {value}" for name, value in {"Host": "localhost", **headers}.items()]
    head = "\r\n".join(["POST /v1/chat/completions HTTP/1.1", *lines, f"Content-Length: {len(data)}"])
    return head.encode() + b"\r\n\r\n" + data


def active(found: Serving) -> int:
    return int(httpx.get(f"{found.url}/api/dockyard/status").json()["requests"]["active"])


def test_two_hundred_clients_that_hang_up_leave_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, echo_tokens_per_second=20, max_requests=1000) as found:
        httpx.post(f"{found.url}/v1/chat/completions", json=ask("x"))
        until(lambda: active(found) == 0)
        before = open_files(found.process.pid)
        clients = [found.connect() for _ in range(200)]
        for number, sock in enumerate(clients):
            sock.sendall(raw_chat(ask(LONG, stream=number % 2 == 0)))
        until(lambda: active(found) == 200, 30)
        for number, sock in enumerate(clients):
            if number % 4 == 0:
                assert sock.recv(10) == b"HTTP/1.1 2"
            sock.close()
        until(lambda: active(found) == 0)
        until(lambda: open_files(found.process.pid) <= before + 3)
        (row,) = httpx.get(f"{found.url}/api/dockyard/ps").json()["models"]
        assert (row["active"], row["queued"]) == (0, 0)
        metrics = httpx.get(f"{found.url}/metrics").text
        assert 'dockyard_requests_total{dialect="openai-chat",model="echo",outcome="cancelled"} 200.0' in metrics
        assert httpx.post(f"{found.url}/v1/chat/completions", json=ask("x")).status_code == 200


def test_a_stream_reaches_the_client_as_it_is_made(tmp_path: Path) -> None:
    with serving(tmp_path, echo_tokens_per_second=2) as found:
        with httpx.stream("POST", f"{found.url}/v1/chat/completions", json=ask("a b c d e f", stream=True)) as answer:
            times = [time.monotonic() for line in answer.iter_lines() if '"content":" ' in line]
        assert len(times) == 5
        assert times[-1] - times[0] > 0.2, "two seconds lie between them where they are made"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_answers_first(tmp_path: Path, number: int) -> None:
    with serving(tmp_path, echo_tokens_per_second=4) as found:  # long enough to ask beside it on a slow machine
        note = tmp_path / "server.json"
        told = json.loads(note.read_text())
        assert (told["pid"], told["url"]) == (found.process.pid, found.url)
        assert stat.S_IMODE(note.stat().st_mode) == 0o600
        idle = found.connect()
        with httpx.stream(
            "POST", f"{found.url}/v1/chat/completions", json=ask(" ".join("abcdefghijklmnopqrst"), stream=True)
        ) as answer:
            lines = answer.iter_lines()
            next(lines)
            found.process.send_signal(number)
            time.sleep(0.2)
            ready = httpx.get(f"{found.url}/ready")
            assert (ready.status_code, ready.json()["status"]) == (503, "stopping")
            refused = httpx.post(f"{found.url}/v1/chat/completions", json=ask())
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            assert httpx.get(f"{found.url}/health").status_code == 200
            rest = "\n".join(lines)
        assert rest.rstrip().endswith("data: [DONE]")
        assert '"content":" t"' in rest
        assert found.process.wait(20) == 0, found.log.read_text()
        assert not note.exists()
        idle.close()


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    with serving(tmp_path, echo_tokens_per_second=1) as found:
        sock = found.connect()
        sock.sendall(raw_chat(ask(LONG, stream=True)))
        assert sock.recv(10)
        found.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert found.process.poll() is None
        begun = time.monotonic()
        assert found.stop() == 0
        assert time.monotonic() - begun < 15
        rest = b""
        while part := sock.recv(65536):
            rest += part
        assert b'"the server is stopping"' in rest
        sock.close()


def test_who_follows_the_log_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    with serving(tmp_path) as found:
        with httpx.stream("GET", f"{found.url}/api/dockyard/logs?follow=true") as answer:
            assert "listening on" in next(answer.iter_lines())
            begun = time.monotonic()
            assert found.stop() == 0
            assert time.monotonic() - begun < 10


def test_stop_over_http(tmp_path: Path) -> None:
    with serving(tmp_path) as found:
        assert httpx.post(f"{found.url}/api/dockyard/stop", json={}).status_code == 202
        assert found.process.wait(20) == 0


def run_to_its_end(home: Path, **settings: object) -> str:
    done = subprocess.run(
        command({"home": str(home), "port": 0, **settings}), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    return done.stderr


def test_one_server_for_each_home_and_port(tmp_path: Path) -> None:
    with serving(tmp_path / "one") as found:
        told = run_to_its_end(tmp_path / "one")
        assert "Conflict: a server already runs" in told
        assert str(found.process.pid) in told
        told = run_to_its_end(tmp_path / "two", port=found.address[1])
        assert f"SettingsError: can't listen on 127.0.0.1:{found.address[1]}" in told


def test_a_killed_server_leaves_no_lock(tmp_path: Path) -> None:
    with serving(tmp_path) as found:
        found.process.kill()
        found.process.wait()
    with serving(tmp_path) as found:
        assert httpx.get(f"{found.url}/health").status_code == 200


def test_an_open_server_is_refused() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.com"):
        with pytest.raises(SettingsError, match="there are no keys") as refused:
            server.check_exposure(Settings(host=host))
        assert "--api-key" in (refused.value.hint or "")
        server.check_exposure(Settings(host=host, api_keys=("a-long-secret",)))
    with pytest.raises(SettingsError, match="fewer than 8"):
        server.check_exposure(Settings(api_keys=("short:manage",)))
    server.check_exposure(Settings())


def test_a_preload_that_fails_ends_the_server(tmp_path: Path) -> None:
    arguments = command({"home": str(tmp_path), "port": 0}, preload=["no-such-model"])
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "ModelNotFound" in done.stderr
    assert not (tmp_path / "server.json").exists()


def test_keys_guard_everything_but_health(tmp_path: Path) -> None:
    keys = ["infer-secret", "manage-secret:manage"]
    with serving(tmp_path, api_keys=keys, options={"preload": ["echo"]}) as found:
        with httpx.Client(base_url=found.url) as http:
            for path in ("/health", "/ready", "/ready?deep=1", "/docs", "/openapi.json"):
                assert http.get(path).status_code == 200, path
            for path in ("/v1/models", "/metrics", "/api/dockyard/ps", "/v2/"):
                assert http.get(path).status_code == 401, path
                assert http.get(path, headers={"authorization": "Bearer wrong"}).status_code == 401, path
            assert http.post("/v1/chat/completions", json=ask()).status_code == 401
            infer = {"x-api-key": "infer-secret"}
            assert http.post("/v1/chat/completions", json=ask(), headers=infer).status_code == 200
            assert http.get("/v1/models", headers=infer).status_code == 200
            assert http.get("/metrics", headers=infer).status_code == 200
            assert http.get("/api/dockyard/ps", headers=infer).status_code == 403
            assert http.post("/api/dockyard/stop", headers=infer).status_code == 403
            manage = {"authorization": "bearer manage-secret"}
            assert http.get("/api/dockyard/ps", headers=manage).json()["models"][0]["reference"] == "echo"
            token = json.loads((tmp_path / "server.json").read_text())["token"]
            assert http.get("/api/dockyard/ps", headers={"authorization": f"Bearer {token}"}).status_code == 200
        assert "infer-secret" not in found.log.read_text()


def test_stored_keys_work_at_once_and_end_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, api_keys=["manage-secret:manage"]) as found:
        with httpx.Client(base_url=found.url, headers={"authorization": "Bearer manage-secret"}) as http:
            made = http.post("/api/dockyard/keys", json={"name": "bob", "models": ["echo"]})
            assert made.status_code == 201
            key = {"authorization": f"Bearer {made.json()['secret']}"}
            assert http.post("/v1/chat/completions", json=ask(), headers=key).status_code == 200
            other = http.post("/v1/chat/completions", json={**ask(), "model": "else"}, headers=key)
            assert other.status_code == 403
            assert made.json()["secret"] not in http.get("/api/dockyard/keys").text
            assert http.post("/api/dockyard/keys", json={"name": "bob"}).status_code == 409
            usage = http.get("/api/dockyard/usage").json()["usage"]
            assert {(row["key"], row["model"], row["requests"]) for row in usage} >= {("bob", "echo", 1)}
            assert http.delete("/api/dockyard/keys/bob").status_code == 200
            assert http.post("/v1/chat/completions", json=ask(), headers=key).status_code == 401


def test_limits_of_what_a_client_may_send(tmp_path: Path) -> None:
    with serving(tmp_path, max_body=2048) as found:
        large = httpx.post(f"{found.url}/v1/chat/completions", json=ask("x" * 5000))
        assert (large.status_code, large.json()["error"]["code"]) == (413, "payload_too_large")
        large = httpx.post(f"{found.url}/api/dockyard/load", json={"model": "x" * 5000})
        assert (large.status_code, large.json()["error"]["code"]) == (413, "payload_too_large")

        def parts() -> Any:
            for _ in range(50):
                yield b"x" * 100

        assert httpx.post(f"{found.url}/v1/chat/completions", content=parts()).status_code == 413
        with found.connect() as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
            sent = 0
            with contextlib.suppress(ConnectionError):
                for _ in range(1000):
                    sent += sock.send(b"x-header: " + b"y" * 1000 + b"\r\n")
                    time.sleep(0.001)
            assert sent < 900_000
        assert httpx.get(f"{found.url}/health").status_code == 200


def test_headers_that_never_end_are_hung_up_on(tmp_path: Path) -> None:
    with serving(tmp_path) as found:
        with found.connect() as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
            begun = time.monotonic()
            assert sock.recv(100).partition(b"\r\n")[0] in (b"", b"HTTP/1.1 408 Request Timeout")
            assert time.monotonic() - begun < server.HEADER_MILLISECONDS / 1000 + 15


def test_many_slow_clients_do_not_stop_the_others(tmp_path: Path) -> None:
    with serving(tmp_path) as found:
        slow = [found.connect() for _ in range(100)]
        for sock in slow:
            sock.sendall(raw_chat(ask())[:-5])
        begun = time.monotonic()
        assert httpx.post(f"{found.url}/v1/chat/completions", json=ask()).status_code == 200
        assert time.monotonic() - begun < 20
        for sock in slow:
            sock.close()


def test_a_reader_that_stops_reading_does_not_fill_memory(tmp_path: Path) -> None:
    with serving(tmp_path) as found:
        before = memory(found.process.pid)
        with found.connect() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(raw_chat(ask("word " * 100, stream=True, max_tokens=8000, ignore_eos=True)))
            time.sleep(1)
            assert memory(found.process.pid) - before < 60 << 20
        until(lambda: active(found) == 0)


def memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_answers_to_many_at_once_are_not_mixed_up(tmp_path: Path) -> None:
    with serving(tmp_path) as found:
        wrong: list[str] = []

        def talk(name: int) -> None:
            with httpx.Client(base_url=found.url) as http:
                for turn in range(20):
                    text = f"client {name} turn {turn}"
                    answer = http.post("/v1/chat/completions", json=ask(text)).json()
                    if answer["choices"][0]["message"]["content"] != text:
                        wrong.append(text)

        threads = [threading.Thread(target=talk, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_a_hub_serves_the_store_and_nothing_else(tmp_path: Path) -> None:
    with serving(tmp_path, options={"hub_only": True}) as found:
        assert httpx.get(f"{found.url}/v2/").status_code == 200
        assert httpx.get(f"{found.url}/health").status_code == 200
        assert httpx.get(f"{found.url}/ready").status_code == 200
        assert httpx.post(f"{found.url}/v1/chat/completions", json=ask()).status_code == 404
        assert httpx.get(f"{found.url}/v1/models").status_code == 404
        assert httpx.get(f"{found.url}/api/dockyard/status").json()["models"] == 0
