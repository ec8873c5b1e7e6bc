"""Rerank and score: Cohere's, Jina's and vLLM's shapes, over the echo engine, which counts words in common."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.testing import TestClient

from dockyard.api import create_app
from dockyard.api.rerank import sigmoid
from dockyard.settings import Settings

DOCUMENTS = ["a cat on a mat", "ships sail", "the cat sat", "nothing here"]
ASKED = {"model": "echo", "query": "the cat sat", "documents": DOCUMENTS}
RERANKS = ("/v1/rerank", "/rerank", "/v2/rerank")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient[Any]]:
    app = create_app(Settings(home=str(tmp_path)), trusted=True)
    with TestClient(app, base_url="http://127.0.0.1:12434") as found:
        yield found


@pytest.mark.parametrize("path", RERANKS)
def test_the_best_document_comes_first_whatever_the_path(client: TestClient[Any], path: str) -> None:
    answer = client.post(path, json=ASKED)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    results = found["results"]
    assert [one["index"] for one in results] == [2, 0, 1, 3]
    scores = [one["relevance_score"] for one in results]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(1 / (1 + math.exp(-1)))  # the same words: the engine says 1
    assert "document" not in results[0]
    words = sum(len(f"{ASKED['query']} {one}".split()) for one in DOCUMENTS)
    assert found["usage"] == {"prompt_tokens": words, "total_tokens": words}
    assert found["meta"]["tokens"] == {"input_tokens": words, "output_tokens": 0}
    assert found["meta"]["api_version"] == {"version": "2" if "v2" in path else "1"}
    assert (found["model"], found["object"]) == ("echo", "list")
    assert answer.headers["x-dockyard-model"] == "echo"


def test_top_n_documents_and_logits(client: TestClient[Any]) -> None:
    asked = {**ASKED, "top_n": 2, "return_documents": True, "use_activation": False}
    found = client.post("/v1/rerank", json=asked).json()["results"]
    assert [one["index"] for one in found] == [2, 0]
    assert found[0]["relevance_score"] == pytest.approx(1.0)
    assert found[0]["document"] == {"text": "the cat sat"}
    assert len(client.post("/v1/rerank", json={**ASKED, "top_n": 99}).json()["results"]) == 4


def test_equal_documents_keep_their_order(client: TestClient[Any]) -> None:
    found = client.post("/rerank", json={**ASKED, "documents": ["x", "y", "x"]}).json()["results"]
    assert [one["index"] for one in found] == [0, 1, 2]


def test_objects_are_ranked_by_their_text_or_their_fields(client: TestClient[Any]) -> None:
    documents = [{"text": "ships sail", "title": "the cat sat"}, {"text": "the cat sat", "title": "ships"}]
    plain = client.post("/v1/rerank", json={**ASKED, "documents": documents, "query": {"text": "the cat sat"}}).json()
    assert [one["index"] for one in plain["results"]] == [1, 0]
    asked = {**ASKED, "documents": documents, "rank_fields": ["title"], "return_documents": True}
    by_title = client.post("/v1/rerank", json=asked).json()["results"]
    assert [one["index"] for one in by_title] == [0, 1]
    assert by_title[0]["document"] == documents[0]


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"documents": []}, 400, "documents"),
        ({"query": ""}, 400, "query"),
        ({"query": {"image": "x"}}, 400, "query"),
        ({"model": None}, 400, "model"),
        ({"top_n": 0}, 400, "top_n"),
        ({"documents": ["a", 7]}, 400, "documents[1]"),
        ({"documents": [{"title": "x"}]}, 400, "documents[0] has no 'text'"),
        ({"documents": [{"text": 5}]}, 400, "documents[0].text"),
        ({"rank_fields": ["title"]}, 400, "documents[0] is text"),
        ({"max_chunks_per_doc": 3}, 400, "max_chunks_per_doc"),
        ({"relevant_spans": {}, "priority": 7}, 400, "priority"),
        ({"truncation": False}, 400, "truncation"),
        ({"colour": "red"}, 400, "colour"),
        ({"model": "no/such-model"}, 404, "no/such-model"),
    ],
)
@pytest.mark.parametrize("path", ["/v2/rerank", "/v1/rerank"])
def test_bad_requests_are_told_in_the_services_own_shape(
    client: TestClient[Any], path: str, change: dict[str, Any], status: int, text: str
) -> None:
    answer = client.post(path, json={**ASKED, **change})
    assert answer.status_code == status, answer.text
    found = answer.json()
    assert text in found["message"]
    assert found["detail"] == found["message"]
    assert text in found["error"]["message"]


def test_what_is_no_json_and_no_post_is_told_too(client: TestClient[Any]) -> None:
    assert "not JSON" in client.post("/v2/rerank", content=b'{"model": ').json()["message"]
    answer = client.get("/v2/rerank")
    assert answer.status_code == 405
    assert "POST" in answer.json()["message"]


def test_one_text_is_scored_against_many(client: TestClient[Any]) -> None:
    found = client.post("/v1/score", json={"model": "echo", "text_1": "the cat sat", "text_2": DOCUMENTS}).json()
    assert [one["index"] for one in found["data"]] == [0, 1, 2, 3]
    assert {one["object"] for one in found["data"]} == {"score"}
    ranked = client.post("/rerank", json=ASKED).json()["results"]
    by_index = {one["index"]: one["relevance_score"] for one in ranked}
    assert [one["score"] for one in found["data"]] == [by_index[index] for index in range(4)]
    assert found["object"] == "list"
    assert found["usage"]["completion_tokens"] == 0
    single = client.post("/score", json={"model": "echo", "text_1": ["the cat sat"], "text_2": "the cat sat"}).json()
    assert [one["score"] for one in single["data"]] == [pytest.approx(sigmoid(1.0))]


def test_lists_of_one_length_are_pairs(client: TestClient[Any]) -> None:
    asked = {"model": "echo", "text_1": ["cat", "ships", "cat"], "text_2": ["cat", "cat", "cat dog"]}
    found = client.post("/score", json={**asked, "use_activation": False}).json()
    assert [round(one["score"], 3) for one in found["data"]] == [1.0, 0.0, 0.707]
    assert found["usage"]["total_tokens"] == 2 + 2 + 3


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"text_2": ["a"]}, "text_1 has 2 texts and text_2 has 1"),
        ({"text_1": []}, "text_1"),
        ({"text_2": ["a", ""]}, "text_2"),
        ({"truncate_prompt_tokens": 4}, "truncate_prompt_tokens"),
    ],
)
def test_bad_scores_are_told_as_vllm_does(client: TestClient[Any], change: dict[str, Any], text: str) -> None:
    asked = {"model": "echo", "text_1": ["a", "b"], "text_2": ["a", "b"], **change}
    answer = client.post("/score", json=asked)
    assert answer.status_code == 400
    assert text in answer.json()["error"]["message"]


def test_cohere_s_own_client(server: tuple[str, str]) -> None:
    cohere = pytest.importorskip("cohere", reason="the official Cohere client is not installed")
    from cohere.core.api_error import ApiError

    url, key = server
    with cohere.ClientV2(api_key=key, base_url=url) as client:
        found = client.rerank(model="echo", query="the cat sat", documents=DOCUMENTS, top_n=2)
        assert [one.index for one in found.results] == [2, 0]
        assert found.results[0].relevance_score == pytest.approx(sigmoid(1.0))
        assert found.meta.api_version.version == "2"
        assert found.meta.billed_units.search_units == 1
        with pytest.raises(cohere.NotFoundError) as missing:
            client.rerank(model="none/here", query="q", documents=["d"])
        assert "none/here" in missing.value.body["message"]
        with pytest.raises(cohere.BadRequestError) as bad:
            client.rerank(model="echo", query="q", documents=[])
        assert "documents" in bad.value.body["message"]
    with cohere.ClientV2(api_key="wrong", base_url=url) as stranger, pytest.raises(ApiError) as refused:
        stranger.rerank(model="echo", query="q", documents=["d"])
    assert refused.value.status_code == 401


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_the_sigmoid_is_a_share_and_keeps_the_order(one: float, other: float) -> None:
    assert 0 <= sigmoid(one) <= 1
    if one < other:
        assert sigmoid(one) <= sigmoid(other)
    assert sigmoid(one) + sigmoid(-one) == pytest.approx(1)
