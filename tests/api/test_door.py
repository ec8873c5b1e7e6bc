"""Who may knock: hosts, origins, keys; and the routes that are not dialects."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_help import CHAT, HELLO, client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar import get
from litestar.testing import TestClient

import dockyard.api
from dockyard.api import create_app
from dockyard.artifact.store import Store
from dockyard.settings import Settings
from scripted import REFERENCE, ScriptedFleet, words

ORIGINS = ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:8080", "http://LOCALHOST:1"]
FOREIGN = ["https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example", "file://",
           "http://[bad", "chrome-extension://abc"]  # fmt: skip


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    with client(tmp_path_factory.mktemp("keyless"), trusted=False) as http:
        yield http


@pytest.mark.parametrize("host", ["localhost:12434", "127.0.0.1", "[::1]:99", "LocalHost"])
def test_a_keyless_server_answers_to_this_machine(keyless: TestClient[Any], host: str) -> None:
    assert keyless.post(CHAT, json=HELLO, headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:12434", "10.0.0.1", "[::2]", "", "[", "a@b"])
@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/api/dockyard/status", "/v2/", "/health"])
def test_and_to_no_name_that_others_may_own(keyless: TestClient[Any], host: str, path: str) -> None:
    answer = (
        keyless.get(path, headers={"host": host})
        if path != CHAT
        else keyless.post(path, json=HELLO, headers={"host": host})
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


@pytest.mark.parametrize("origin", ORIGINS)
def test_local_pages_may_read_answers(keyless: TestClient[Any], origin: str) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type, authorization"}
    before = keyless.options(CHAT, headers={"origin": origin, **asked})
    assert before.status_code == 204
    assert before.headers["access-control-allow-origin"] == origin
    assert before.headers["access-control-allow-headers"] == asked["access-control-request-headers"]
    assert "POST" in before.headers["access-control-allow-methods"]
    for answer in (
        keyless.post(CHAT, json=HELLO, headers={"origin": origin}),
        keyless.get("/nothing", headers={"origin": origin}),
    ):
        assert answer.headers["access-control-allow-origin"] == origin
        assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("origin", FOREIGN)
def test_foreign_pages_may_do_nothing_without_keys(keyless: TestClient[Any], origin: str) -> None:
    for answer in (
        keyless.post(CHAT, json=HELLO, headers={"origin": origin}),
        keyless.post("/api/dockyard/unload", json={"model": None}, headers={"origin": origin}),
        keyless.options(CHAT, headers={"origin": origin, "access-control-request-method": "POST"}),
    ):
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


def test_listed_origins_and_keys(tmp_path: Path) -> None:
    key = {"authorization": "Bearer a-long-secret"}
    site = "https://app.example"
    with client(tmp_path, trusted=False, api_keys=("a-long-secret",), cors_origins=(site,)) as http:
        good = http.post(CHAT, json=HELLO, headers={"origin": site, **key})
        assert (good.status_code, good.headers["access-control-allow-origin"]) == (200, site)
        other = http.post(CHAT, json=HELLO, headers={"origin": "https://evil.example", **key})
        assert (other.status_code, other.headers.get("access-control-allow-origin")) == (200, None)
        asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        assert http.options(CHAT, headers=asked).status_code == 403
        assert http.get("/health", headers={"host": "server.example"}).status_code == 200


def test_failures_of_the_framework_have_our_shape(keyless: TestClient[Any]) -> None:
    for method, path, status, code in (
        ("GET", "/nothing", 404, "not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/health", 405, "method_not_allowed"),
        ("POST", "/api/dockyard/load", 400, "invalid_request"),
        ("GET", "/ready?deep=maybe", 400, "invalid_request"),
        ("GET", "/v1/models/no-such", 404, "model_not_found"),
    ):
        answer = keyless.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), path


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/api/dockyard/load", {"model": 5}, "model"),
        ("/api/dockyard/load", {}, "model"),
        ("/api/dockyard/load", {"model": "x", "extra": 1}, "extra"),
        ("/api/dockyard/load", {"model": "x", "options": {"context": "big"}}, "options.context"),
        ("/api/dockyard/unload", {"models": "x"}, "models"),
        ("/api/dockyard/keys", {"name": "../x"}, "name"),
        ("/api/dockyard/keys", {"name": "x", "scopes": ["root"]}, "scopes[0]"),
    ],
)
def test_management_names_wrong_fields(keyless: TestClient[Any], path: str, body: Any, param: str) -> None:
    answer = keyless.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_management(tmp_path: Path) -> None:
    fleet = ScriptedFleet()
    with client(tmp_path, fleet) as http:
        status = http.get("/api/dockyard/status").json()
        assert status["machine"]["cores"] >= 1
        assert status["requests"] == {"active": 0, "limit": 512}
        (row,) = http.get("/api/dockyard/ps").json()["models"]
        assert row["reference"] == REFERENCE
        assert (row["active"], row["queued"], row["restarts"], row["reason"], row["expires_at"]) == (0, 2, 0, "", None)
        assert http.post("/api/dockyard/load", json={"model": "m"}).json()["reference"] == REFERENCE
        assert http.post("/api/dockyard/unload", json={"model": None}).json() == {"unloaded": 1}
        assert fleet.unloaded == [None]
        assert http.get("/api/dockyard/logs?model=m&tail=2").text == "m line 1\nm line 2\n"
        assert http.get("/api/dockyard/models").json() == {"models": []}
        assert [step["step"] for step in http.get("/api/dockyard/pipeline").json()][:2] == ["identify", "reserve"]
        assert http.post("/api/dockyard/stop").status_code == 409
        assert fleet.held == 0


def test_models_of_the_store(tmp_path: Path) -> None:
    settings_ = Settings(home=str(tmp_path))
    store = Store.open(settings_)
    config = store.add_bytes(b"{}")
    layer = store.add_bytes(b"weights")
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config.digest, "size": config.size},
        "layers": [{"mediaType": "application/octet-stream", "digest": layer.digest, "size": layer.size}],
    }
    stored = store.put_manifest(json.dumps(manifest).encode(), reference=store.named("tiny:v1"))
    with client(tmp_path) as http:
        tiny, echo = http.get("/v1/models").json()["data"]
        assert (tiny["id"], tiny["object"], tiny["owned_by"]) == ("tiny:v1", "model", "docker.io/ai")
        assert tiny["dockyard"]["digest"] == stored.digest
        assert tiny["dockyard"]["state"] == "stored"
        assert echo["id"] == "echo"
        for name in ("tiny:v1", "ai/tiny:v1", "docker.io/ai/tiny:v1", "docker.io%2Fai%2Ftiny:v1"):
            answer = http.get(f"/v1/models/{name}")
            assert answer.status_code == 200, answer.text
        (row,) = http.get("/api/dockyard/models").json()["models"]
        assert (row["name"], row["reference"]) == ("tiny:v1", "docker.io/ai/tiny:v1")
        assert http.delete("/api/dockyard/models/tiny:v1").status_code == 200
        assert http.get("/api/dockyard/models").json() == {"models": []}


def test_ready_can_prove_it(tmp_path: Path) -> None:
    fleet = ScriptedFleet()
    with client(tmp_path, fleet) as http:
        assert http.get("/ready?deep=1").json() == {"status": "ready", "model": REFERENCE}
        assert fleet.requests[0].sampling.max_tokens == 1
        from dockyard.errors import LoadFailed

        fleet.refuses = LoadFailed("no")
        answer = http.get("/ready?deep=1&model=x")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "load_failed")
        assert http.get("/ready").status_code == 200
        assert fleet.held == 0


def test_metrics_have_our_names_and_those_of_vllm(tmp_path: Path) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    with client(tmp_path) as http:
        for _ in range(3):
            http.post(CHAT, json=HELLO)
        http.post(CHAT, json={**HELLO, "temperature": 9})
        text = http.get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    values = {(s.name, *sorted(s.labels.items())): s.value for f in families.values() for s in f.samples}
    own, vllm = ("model", REFERENCE), ("model_name", REFERENCE)
    assert values[("dockyard_requests_total", ("dialect", "openai-chat"), own, ("outcome", "ok"))] == 3
    assert values[("dockyard_completion_tokens_total", own)] == values[("vllm:generation_tokens_total", vllm)] == 9
    for name in ("dockyard_time_to_first_token_seconds", "vllm:time_to_first_token_seconds"):
        assert values[(f"{name}_count", own if name.startswith("d") else vllm)] == 3
    assert values[("vllm:e2e_request_latency_seconds_bucket", ("le", "+Inf"), vllm)] == 3
    assert values[("vllm:num_requests_waiting", vllm)] == 2
    assert values[("dockyard_model_memory_bytes", ("engine", "scripted"), ("kind", "measured"), own)] == 1234
    assert "process_resident_memory_bytes" in families


def test_the_reference_needs_no_network(keyless: TestClient[Any]) -> None:
    page = keyless.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert not re.search(r"<script|src=|https?://", page.text)
    for told in ("/v1/chat/completions", "max_completion_tokens", "/api/dockyard/ps", "/ready"):
        assert told in page.text
    described = keyless.get("/openapi.json").json()
    assert described["openapi"].startswith("3.")
    body = described["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = described["components"]["schemas"][body["$ref"].rpartition("/")[2]]
    assert set(schema["required"]) == {"model", "messages"}
    text = json.dumps(described)
    for reference in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert reference in described["components"]["schemas"]


def test_further_handlers_can_be_added(tmp_path: Path) -> None:
    @get("/", sync_to_thread=False)
    def page() -> str:
        return "a page"

    app = create_app(Settings(home=str(tmp_path)), fleet=ScriptedFleet(), trusted=True, extra=[page])
    with TestClient(app, base_url="http://127.0.0.1") as http:
        assert http.get("/").text == "a page"


@pytest.mark.parametrize("text", ["def routes(site):\n    raise OSError('no disk')\n", "def routes(:\n"])
def test_a_broken_dialect_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "broken_one.py").write_text(text)
    monkeypatch.setattr("dockyard.api.__path__", [*dockyard.api.__path__, str(tmp_path)])
    with client(tmp_path / "home") as http:
        answered = http.post("/api/chat", json={**HELLO, "stream": False})
        nothing = http.get("/v1/broken/one")
    sys.modules.pop("dockyard.api.broken_one", None)
    assert answered.status_code == 200, answered.text
    assert (nothing.status_code, "broken_one" in nothing.text) == (404, True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
COUNTS = ["temperature", "top_p", "top_k", "n", "seed", "max_tokens", "top_logprobs", "best_of"]
TEXTS = ["model", "messages", "prompt", "stop", "suffix", "user"]
OTHERS = ["stream", "stream_options", "logprobs", "logit_bias", "tools", "tool_choice", "response_format", "metadata"]
FIELDS = [*COUNTS, *TEXTS, *OTHERS, "echo", "modalities", "x"]
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "tool", "system"]) | JSON,
        "content": st.text(max_size=9) | JSON,
        "tool_calls": JSON,
        "name": JSON,
        "refusal": JSON,
    },
)
BODY = st.builds(
    lambda base, noise: {**base, **noise},
    st.fixed_dictionaries(
        {"model": st.just("m")},
        optional={
            "messages": st.lists(MESSAGE, max_size=3),
            "prompt": st.text(max_size=5) | st.lists(JSON, max_size=3),
        },
    ),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODY | JSON, path=st.sampled_from([CHAT, "/v1/completions", "/api/dockyard/load", "/api/dockyard/unload"]))
def test_no_body_is_a_server_error(open_door: TestClient[Any], body: Any, path: str) -> None:
    answer = open_door.post(path, content=json.dumps(body))
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        error = answer.json()["error"]
        assert error["message"]
        assert error["type"] == "invalid_request_error"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=40))
def test_no_bytes_are_a_server_error(open_door: TestClient[Any], body: bytes) -> None:
    assert open_door.post(CHAT, content=body).status_code == 400


@pytest.fixture(scope="module")
def open_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    with client(tmp_path_factory.mktemp("open"), ScriptedFleet(words("x"))) as http:
        yield http
