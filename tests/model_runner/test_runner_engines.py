"""``/engines…``: backends, loaded models, configuration, records, and the inference paths."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.testing import TestClient

from dockyard.api import create_app
from dockyard.api._runner_wire import backends, seconds, told
from dockyard.errors import InvalidRequest
from dockyard.settings import Settings

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "Hello to you"}]}
Client = TestClient[Any]


def app(home: Path, **settings: Any) -> Client:
    return TestClient(create_app(Settings(home=str(home), **settings), trusted=True), base_url="http://127.0.0.1:12434")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with app(tmp_path) as found:
        yield found


def until(what: Callable[[], Any]) -> Any:
    """The first true value of ``what()``; it must come."""
    end = time.monotonic() + 20
    while not (found := what()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


def test_the_status_is_what_clients_wait_for(client: Client) -> None:
    found = client.get("/engines/status").json()
    assert found["llama.cpp"].startswith("Running")
    assert all(state.startswith(("Running", "Not Installed", "Error")) for state in found.values())
    assert "echo" not in found


@pytest.mark.parametrize("prefix", ["/engines/v1", "/engines/llama.cpp/v1", "/engines/vllm/v1", "/engines/openvino/v1"])
def test_inference_below_engines_is_the_same_inference(client: Client, prefix: str) -> None:
    if prefix.split("/")[2] not in ("v1", *backends()):
        pytest.skip(f"there is no {prefix.split('/')[2]} here")
    answer = client.post(f"{prefix}/chat/completions", json=CHAT)
    assert answer.json()["choices"][0]["message"]["content"] == "Hello to you"
    with client.stream("POST", f"{prefix}/chat/completions", json={**CHAT, "stream": True}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert "".join(stream.iter_text()).endswith("data: [DONE]\n\n")
    assert client.post(f"{prefix}/completions", json={"model": "echo", "prompt": "a b"}).json()["choices"]
    vectors = client.post(f"{prefix}/embeddings", json={"model": "echo", "input": "a b"}).json()
    assert len(vectors["data"][0]["embedding"]) > 1
    asked = {"model": "echo", "query": "b", "documents": ["a", "b"]}
    for path in (f"{prefix}/rerank", f"{prefix.removesuffix('/v1')}/rerank"):
        assert client.post(path, json=asked).json()["results"][0]["index"] == 1
    scored = client.post(f"{prefix.removesuffix('/v1')}/score", json={"model": "echo", "text_1": "a", "text_2": "a"})
    assert scored.json()["data"][0]["score"] > 0.7
    assert "echo" in [one["id"] for one in client.get(f"{prefix}/models").json()["data"]]
    assert client.get(f"{prefix}/models/echo").json()["id"] == "echo"


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        ("POST", "/engines/nosuch/v1/chat/completions", "there is no backend 'nosuch'"),
        ("GET", "/engines/nosuch/v1/models", "llama.cpp"),
        ("POST", "/engines/nosuch/_configure", "there is no backend 'nosuch'"),
        ("GET", "/engines/nothing", "nothing"),
        ("GET", "/engines/llama.cpp", "/engines/llama.cpp"),
        ("GET", "/engines/v1/nothing", "/v1/nothing"),
    ],
)
def test_what_is_not_there_is_told(client: Client, method: str, path: str, text: str) -> None:
    answer = client.request(method, path, json=CHAT if method == "POST" else None)
    assert answer.status_code == 404
    assert text in answer.json()["error"]["message"] + answer.json()["error"].get("hint", "")


def test_mistakes_of_inference_keep_openai_s_shape(client: Client) -> None:
    """Model Runner's own end-to-end checks: an unknown model, bad JSON, no messages, none of them a 500."""
    for body, status in (
        (json.dumps({**CHAT, "model": "no/such"}), 404),
        ('{"model": "echo", ', 400),
        (json.dumps({**CHAT, "messages": []}), 400),
    ):
        answer = client.post("/engines/v1/chat/completions", content=body)
        assert answer.status_code == status
        assert answer.json()["error"]["message"]


def test_a_browser_s_page_gets_its_permission_once(client: Client) -> None:
    answer = client.post("/engines/v1/chat/completions", json=CHAT, headers={"origin": "http://localhost:3000"})
    assert answer.headers.get_list("access-control-allow-origin") == ["http://localhost:3000"]


def test_preloading_answers_nothing_and_loads(client: Client) -> None:
    assert client.get("/engines/ps").json() == []
    headers = {"x-preload-only": "true"}
    answer = client.post("/engines/llama.cpp/v1/chat/completions", json={"model": "echo"}, headers=headers)
    assert (answer.status_code, answer.content) == (200, b"")
    (row,) = client.get("/engines/ps").json()
    assert (row["model_name"], row["mode"], row["in_use"], row["loading"]) == ("echo", "completion", False, False)
    assert row["last_used"].endswith("Z")
    missing = client.post("/engines/v1/chat/completions", json={"model": "no/such"}, headers=headers)
    assert missing.status_code == 404


def test_unloading_counts_what_was_idle(client: Client) -> None:
    client.post("/v1/chat/completions", json=CHAT)
    assert client.post("/engines/unload", json={"models": ["echo"], "backend": "llama.cpp"}).json() == {
        "unloaded_runners": 0
    }
    assert client.post("/engines/unload", json={"models": ["echo"]}).json() == {"unloaded_runners": 1}
    assert client.get("/engines/ps").json() == []
    assert client.post("/engines/unload", json={"all": True}).json() == {"unloaded_runners": 0}
    for body, status in (({}, 400), ({"models": ["no/such"]}, 404), ({"all": True, "backend": "nosuch"}, 404)):
        answer = client.post("/engines/unload", json=body)
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/plain")


def test_a_busy_model_is_neither_unloaded_nor_configured(tmp_path: Path) -> None:
    with app(tmp_path, echo_tokens_per_second=4.0) as client, ThreadPoolExecutor(1) as pool:
        assert client.get("/engines/ps").json() == []
        said = {**CHAT, "messages": [{"role": "user", "content": "word " * 24}]}
        answer = pool.submit(client.post, "/engines/v1/chat/completions", json=said)
        until(lambda: [row for row in client.get("/engines/ps").json() if row["in_use"]])
        assert client.post("/engines/unload", json={"all": True}).json() == {"unloaded_runners": 0}
        refused = client.post("/engines/_configure", json={"model": "echo", "context-size": 512})
        assert refused.status_code == 409
        assert "in use" in refused.text
        assert answer.result().json()["choices"][0]["finish_reason"] == "stop"


def test_configuring_merges_loads_and_outlives_a_restart(tmp_path: Path) -> None:
    with app(tmp_path) as client:
        asked = {"model": "echo", "context-size": 512, "runtime-flags": ["--temp", "0", "--parallel", "3"]}
        answer = client.post("/engines/_configure", json=asked)
        assert (answer.status_code, answer.content) == (202, b"")
        until(lambda: client.get("/engines/ps").json())
        assert client.post("/engines/llama.cpp/_configure", json={"model": "echo", "keep_alive": "1h30m"}).is_success
        assert client.post("/engines/_configure", json={"model": "echo", "raw-runtime-flags": "--top-k 7"}).is_success
    with app(tmp_path) as client:
        (found,) = client.get("/engines/_configure").json()
        assert (found["Model"], found["Mode"]) == ("echo", "completion")
        assert found["ModelID"]
        config = found["Config"]
        assert (config["context-size"], config["parallel"], config["keep_alive"]) == (512, 3, "5400s")
        assert config["defaults"]["sampling"] == {"temperature": 0.0, "top_k": 7}
        long = {"model": "echo", "prompt": "word " * 600}
        assert client.post("/v1/completions", json=long).json()["error"]["code"] == "context_length_exceeded"


def test_a_mode_has_a_configuration_of_its_own(client: Client) -> None:
    client.post("/engines/_configure", json={"model": "echo", "context-size": 512})
    client.post("/engines/_configure", json={"model": "echo", "context-size": 256, "mode": "embedding"})
    client.post("/engines/_configure", json={"model": "echo", "runtime-flags": ["--reranking"], "context-size": 128})
    found = {one["Mode"]: one["Config"]["context-size"] for one in client.get("/engines/_configure").json()}
    assert found == {"completion": 512, "embedding": 256, "reranking": 128}


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"model": "no/such"}, 404, "no/such"),
        ({"model": None}, 400, "model"),
        ({"mode": "image-generation"}, 400, "image-generation"),
        ({"context-size": "big"}, 400, "context-size"),
        ({"context-size": -5}, 400, "context-size"),
        ({"keep_alive": "soon"}, 400, "soon"),
        ({"runtime-flags": ["--log-file", "/etc/passwd"]}, 400, "--log-file"),
        ({"runtime-flags": ["--temp", "hot"]}, 400, "--temp"),
        ({"runtime-flags": ["stray"]}, 400, "stray"),
        ({"runtime-flags": ["--temp", "0"], "raw-runtime-flags": "--temp 0"}, 400, "not both"),
        ({"raw-runtime-flags": "--grammar 'open"}, 400, "raw-runtime-flags"),
        ({"speculative": {"draft_model": "tiny"}}, 400, "draft"),
        ({"colour": "red"}, 400, "colour"),
    ],
)
def test_bad_configurations_change_nothing(client: Client, change: dict[str, Any], status: int, text: str) -> None:
    answer = client.post("/engines/_configure", json={"model": "echo", **change})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert text in answer.text
    assert client.get("/engines/_configure").json() == []


def test_the_last_ten_requests_are_remembered_without_what_was_said(client: Client) -> None:
    assert client.get("/engines/requests").json() == []
    for number in range(12):
        client.post(
            "/v1/chat/completions", json={**CHAT, "messages": [{"role": "user", "content": f"secret {number}"}]}
        )
    (found,) = client.get("/engines/requests?model=echo").json()
    assert (found["model"], found["count"], len(found["records"])) == ("echo", 10, 10)
    record = found["records"][-1]
    assert (record["status_code"], record["error"], record["method"]) == (200, "", "POST")
    assert json.loads(record["response"])["usage"]["completion_tokens"] == 2
    assert "secret" not in json.dumps(found)
    assert client.get("/engines/requests?model=other").json() == []


def test_content_is_kept_where_the_setting_says_so(tmp_path: Path) -> None:
    with app(tmp_path, record_content=True) as client:
        client.post("/v1/chat/completions", json=CHAT)  # before anybody asked for records
        client.post("/v1/chat/completions", json={**CHAT, "model": "no/such"})
        found = {one["model"]: one["records"][0] for one in client.get("/engines/requests").json()}
        assert "Hello to you" in found["echo"]["request"]
        assert json.loads(found["echo"]["response"])["text"] == "Hello to you"
        assert (found["no/such"]["status_code"], found["no/such"]["error"]) == (404, "model_not_found")


def test_five_at_once_are_all_answered(client: Client) -> None:
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: client.post("/engines/v1/chat/completions", json=CHAT), range(5)))
    assert {answer.json()["choices"][0]["message"]["content"] for answer in answers} == {"Hello to you"}


def test_disk_version_and_log(client: Client) -> None:
    used = client.get("/engines/df").json()
    assert used["models_disk_usage"] == 0
    assert used["default_backend_disk_usage"] > 1 << 20
    assert client.get("/version").json()["version"]
    assert client.get("/logs").headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("text", "value"),
    [("5m", 300.0), ("1h30m", 5400.0), ("0", 0.0), ("-1", -1.0), ("90s", 90.0), ("250ms", 0.25), ("1.5h", 5400.0)],
)
def test_durations_are_go_s(text: str, value: float) -> None:
    assert seconds(text) == value


@given(st.integers(1, 10**6))
def test_a_duration_survives_being_told(value: int) -> None:
    assert seconds(told(float(value)) or "") == pytest.approx(value, rel=1e-5)


@given(st.from_regex(r"[a-z0-9. -]{0,6}[a-gi-ln-rt-z]", fullmatch=True))
def test_what_ends_in_no_unit_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidRequest, match="duration"):
        seconds(text)
