"""OpenAI's own client, unchanged, against ``/v1/files`` and ``/v1/batches``."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from batch_help import CHAT, begin, ended, jsonl, line, rows

KNOWN = {"object": "file", "purpose": "batch", "filename": "input.jsonl", "status": "processed"}


def test_files(ann: openai.OpenAI, bob: openai.OpenAI) -> None:
    content = bytes(range(256)) * 2000
    made = ann.files.create(
        file=("input.jsonl", content), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.to_dict().items() >= {**KNOWN, "bytes": len(content)}.items()
    assert made.expires_at == made.created_at + 3600
    assert ann.files.retrieve(made.id) == made
    assert ann.files.content(made.id).read() == content
    assert made.id in [file.id for file in ann.files.list(purpose="batch")]
    assert made.id not in [file.id for file in ann.files.list(purpose="vision")]
    for attempt in (bob.files.retrieve, bob.files.content, bob.files.delete):
        with pytest.raises(openai.NotFoundError):
            attempt(made.id)
    assert made.id not in [file.id for file in bob.files.list()]
    assert ann.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        ann.files.retrieve(made.id)


def test_pages_of_files_join_to_the_whole(bob: openai.OpenAI) -> None:
    made = [bob.files.create(file=(f"{n}", b"x"), purpose="evals").id for n in range(5)]
    assert [file.id for file in bob.files.list(purpose="evals", limit=2, order="asc")] == made
    assert [file.id for file in bob.files.list(purpose="evals", limit=1)] == made[::-1]


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"data": {"purpose": "batch"}}, "file"),
        ({"files": {"file": ("a", b"x")}}, "purpose"),
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "odd"}}, "purpose"),
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "batch", "odd": "1"}}, "odd"),
        ({"files": [("file", ("a", b"x")), ("file", ("b", b"x"))], "data": {"purpose": "batch"}}, "file"),
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "batch", "expires_after[seconds]": "9999"}},
         "expires_after.anchor"),
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "batch", "expires_after[anchor]": "created_at",
          "expires_after[seconds]": "7"}}, "expires_after.seconds"),
        ({"content": b"{}", "headers": {"content-type": "application/json"}}, None),
        ({"content": b"--b\r\nodd", "headers": {"content-type": "multipart/form-data; boundary=b"}}, None),
    ],
)  # fmt: skip
def test_a_bad_upload_is_refused_and_leaves_nothing(server: Any, form: dict[str, Any], param: str | None) -> None:
    headers = {"authorization": "Bearer ann-has-a-long-secret", **form.pop("headers", {})}
    if "files" not in form and "data" in form:
        form = {"files": {name: (None, value) for name, value in form["data"].items()}}
    answer = httpx.post(f"{server.url}/v1/files", headers=headers, **form)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert not list((server.log.parent / "files").glob("*.part"))


def test_a_file_that_is_too_large_is_refused(ann: openai.OpenAI, server: Any) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        ann.files.create(file=("big", b"x" * ((1 << 20) + 1)), purpose="batch")
    assert refused.value.status_code == 413
    assert not list((server.log.parent / "files").glob("*.part"))
    assert ann.files.create(file=("largest", b"x" * (1 << 20)), purpose="batch").bytes == 1 << 20


@pytest.mark.parametrize(
    ("url", "bodies", "found"),
    [
        (CHAT, [{}, {"n": 2}], lambda body: body["choices"][0]["message"]["content"]),
        ("/v1/completions", [{"prompt": "hello 0"}, {"prompt": ["hello 1", "b"]}],
         lambda body: body["choices"][0]["text"]),
        ("/v1/responses", [{"input": "hello 0"}, {"input": "hello 1"}],
         lambda body: body["output"][0]["content"][0]["text"]),
        ("/v1/embeddings", [{"input": "hello 0"}, {"input": "hello 1"}], lambda body: f"hello {len(body['data']) - 1}"),
    ],
)  # fmt: skip
def test_each_endpoint(ann: openai.OpenAI, url: str, bodies: list[dict[str, Any]], found: Any) -> None:
    lines = [line(str(number), url, **body) for number, body in enumerate(bodies)]
    batch = begin(ann, jsonl(lines), url, metadata={"a": "b"})
    assert (batch.status, batch.metadata, batch.completion_window) == ("validating", {"a": "b"}, "24h")
    batch = ended(ann, batch)
    assert batch.status == "completed", batch
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (2, 2, 0)
    assert batch.error_file_id is None
    assert batch.usage.input_tokens > 0
    told = rows(ann, batch.output_file_id)
    assert [one["custom_id"] for one in told] == ["0", "1"]
    assert all(one["error"] is None and one["response"]["status_code"] == 200 for one in told)
    assert all(set(one) == {"id", "custom_id", "response", "error"} for one in told)
    assert found(told[0]["response"]["body"]).strip() == "hello 0"
    assert ann.files.retrieve(batch.output_file_id).purpose == "batch_output"


def test_lines_that_fail_go_to_the_error_file(ann: openai.OpenAI) -> None:
    lines = [line("good"), line("hot", temperature=9), line("odd", surprise=1), line("fine")]
    batch = ended(ann, begin(ann, jsonl(lines), output_expires_after={"anchor": "created_at", "seconds": 3600}))
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 2, 2)
    assert [one["custom_id"] for one in rows(ann, batch.output_file_id)] == ["good", "fine"]
    hot, odd = rows(ann, batch.error_file_id)
    assert (hot["custom_id"], hot["response"]["status_code"]) == ("hot", 400)
    assert hot["response"]["body"]["error"]["param"] == "temperature"
    assert odd["response"]["body"]["error"]["param"] == "surprise"
    output = ann.files.retrieve(batch.output_file_id)
    assert output.expires_at == output.created_at + 3600


def bad(**changes: Any) -> bytes:
    return jsonl([line("a"), {**line("b"), **changes}])


@pytest.mark.parametrize(
    ("content", "code", "number", "param"),
    [
        (b"", "empty_file", None, None),
        (b"\n \n", "empty_file", None, None),
        (jsonl([line("a")]) + b"not json\n", "invalid_json_line", 2, None),
        (b"\xff\xfe\n", "invalid_json_line", 1, None),
        (b"[1]\n", "invalid_request", 1, None),
        (bad(custom_id=7), "invalid_request", 2, "custom_id"),
        (bad(custom_id="a"), "duplicate_custom_id", 2, "custom_id"),
        (bad(custom_id=""), "missing_required_parameter", 2, "custom_id"),
        (bad(method="GET"), "invalid_method", 2, "method"),
        (bad(url="/v1/embeddings"), "mismatched_endpoint", 2, "url"),
        (bad(body=[1]), "invalid_request", 2, "body"),
        (bad(body={}), "missing_required_parameter", 2, "body.model"),
        (bad(body={"model": "echo", "stream": True}), "invalid_request", 2, "body.stream"),
        (bad(body={"model": "ecko"}), "model_not_found", 2, "body.model"),
        (jsonl([line(str(n), messages=[]) for n in range(6)]) + b"{", "invalid_json_line", 7, None),
    ],
)
def test_a_bad_file_fails_the_batch_and_says_where(
    ann: openai.OpenAI, content: bytes, code: str, number: int | None, param: str | None
) -> None:
    batch = ended(ann, begin(ann, content))
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
    (error,) = batch.errors.data
    assert (error.code, error.line, error.param) == (code, number, param)
    assert batch.failed_at


def test_bad_batches_are_refused(ann: openai.OpenAI, bob: openai.OpenAI) -> None:
    mine = ann.files.create(file=("input.jsonl", jsonl([line("a")])), purpose="batch").id
    other = ann.files.create(file=("input.jsonl", jsonl([line("a")])), purpose="evals").id
    asked: Any = {"input_file_id": mine, "endpoint": CHAT, "completion_window": "24h"}
    for changes, param, status in (
        ({"endpoint": "/v1/odd"}, "endpoint", 400),
        ({"completion_window": "1h"}, "completion_window", 400),
        ({"input_file_id": "file-none"}, "input_file_id", 404),
        ({"input_file_id": other}, "input_file_id", 400),
        ({"metadata": {"a": "x" * 600}}, "metadata[...]", 400),
    ):
        with pytest.raises(openai.APIStatusError) as refused:
            ann.batches.create(**{**asked, **changes})
        assert (refused.value.status_code, refused.value.param) == (status, param)
    with pytest.raises(openai.NotFoundError):
        bob.batches.create(**asked)
    with pytest.raises(openai.NotFoundError):
        ann.batches.retrieve("batch_none")


def test_listing_and_owners(ann: openai.OpenAI, bob: openai.OpenAI) -> None:
    made = [ended(bob, begin(bob, jsonl([line("a")]))).id for _ in range(3)]
    assert [batch.id for batch in bob.batches.list(limit=1)][:3] == made[::-1]
    assert not {batch.id for batch in ann.batches.list()} & set(made)
    for attempt in (ann.batches.retrieve, ann.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            attempt(made[0])
    with pytest.raises(openai.ConflictError):
        bob.batches.cancel(made[0])


def test_a_large_batch_is_answered_in_order_beside_another(ann: openai.OpenAI, bob: openai.OpenAI) -> None:
    many = begin(ann, jsonl([line(str(n)) for n in range(600)]))
    few = ended(bob, begin(bob, jsonl([line(str(n)) for n in range(20)])))
    assert ann.batches.retrieve(many.id).status in ("validating", "in_progress")
    assert few.request_counts.completed == 20
    many = ended(ann, many)
    assert [one["custom_id"] for one in rows(ann, many.output_file_id)] == [str(n) for n in range(600)]


def test_a_file_in_use_stays(ann: openai.OpenAI) -> None:
    batch = begin(ann, jsonl([line(str(n)) for n in range(2000)]))
    with pytest.raises(openai.ConflictError):
        ann.files.delete(batch.input_file_id)
    begun = ann.batches.cancel(batch.id)
    assert begun.status == "cancelling"
    batch = ended(ann, batch)
    assert (batch.status, bool(batch.cancelled_at), bool(batch.cancelling_at)) == ("cancelled", True, True)
    good, cut = rows(ann, batch.output_file_id), rows(ann, batch.error_file_id)
    assert len(good) + len(cut) == 2000
    assert [one["error"]["code"] for one in cut] == ["batch_cancelled"] * len(cut)
    assert sorted(int(one["custom_id"]) for one in (*good, *cut)) == list(range(2000))
    ann.files.delete(batch.input_file_id)


def test_too_many_lines(server: Any) -> None:
    from pathlib import Path

    from dockyard.gateway.batch.lines import MOST_LINES, check

    path = Path(server.log.parent / "many.jsonl")
    path.write_bytes(jsonl([line(str(n), "/x") for n in range(MOST_LINES)]))
    found = check(path, "/x", 1000)
    assert (len(found.lines), found.errors) == (MOST_LINES, [])
    with path.open("ab") as file:
        file.write(jsonl([line("one more", "/x")]))
    (error,) = check(path, "/x", 1000).errors
    assert (error["code"], error["line"]) == ("too_many_tasks", MOST_LINES + 1)
