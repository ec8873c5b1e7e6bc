"""OpenAI's vector stores and ``file_search`` from the official client, on a real server with real models."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

openai = pytest.importorskip("openai", reason="the official client is not installed")
pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]

from knowledge_samples import BYLAWS, STAFF, documents_in  # noqa: E402

KEYS = ["sk-owner", "sk-other"]
STACK = """
knowledge:
  rules: {index: harbour}
routes:
  helpdesk: {model: smollm2, knowledge: rules}
"""


@pytest.fixture(scope="module")
def harbour(knowledge_store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base of the home itself; nobody but ``mira`` may read the salaries."""
    from dockyard.cli import call

    folder = documents_in(tmp_path_factory.mktemp("harbour"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKYARD_HOME", str(knowledge_store))
        patch.setenv("DOCKYARD_CONFIG", str(folder / "no.yaml"))
        assert call(["knowledge", "create", "harbour"]) == 0
        assert call(["knowledge", "add", "harbour", str(folder)]) == 0
    return "harbour"


@pytest.fixture(scope="module")
def server(harbour: str, knowledge_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from serving import serving

    stack = tmp_path_factory.mktemp("stack") / "dockyard.yaml"
    stack.write_text(STACK)
    with serving(
        knowledge_store, api_keys=KEYS, log_level="warning", stack=str(stack), batch_quiet_seconds=-1.0
    ) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-owner", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def store(client: Any) -> Any:
    """A store with three files, taken in."""
    files = [
        client.files.create(file=(name, io.BytesIO(text.encode())), purpose="assistants")
        for name, text in (("bylaws.md", BYLAWS), ("staff.csv", STAFF))
    ]
    made = client.vector_stores.create(name="Harbour", metadata={"town": "Oldane"})
    assert made.status == "completed"
    batch = client.vector_stores.file_batches.create_and_poll(
        made.id,
        files=[{"file_id": files[0].id, "attributes": {"kind": "rules"}}, {"file_id": files[1].id}],
        poll_interval_ms=100,
    )
    assert batch.status == "completed", batch
    assert batch.file_counts.completed == 2
    return made


def test_files_are_taken_in_and_found(client: Any, store: Any) -> None:
    fresh = client.vector_stores.retrieve(store.id)
    assert (fresh.name, fresh.metadata, fresh.file_counts.completed) == ("Harbour", {"town": "Oldane"}, 2)
    found = client.vector_stores.search(store.id, query="What does a boat of fifteen metres pay?", max_num_results=3)
    best = found.data[0]
    assert best.filename == "bylaws.md"
    assert best.attributes == {"kind": "rules"}
    assert "45 crowns" in best.content[0].text
    assert best.score > 0.1
    wheres = {"type": "ne", "key": "kind", "value": "rules"}
    others = client.vector_stores.search(store.id, query="Who is harbour master?", filters=wheres)
    assert {one.filename for one in others.data} == {"staff.csv"}
    page = client.vector_stores.files.list(store.id)
    assert {one.status for one in page.data} == {"completed"}
    text = client.vector_stores.files.content(page.data[0].id, vector_store_id=store.id)
    assert "Mira Oldane" in text.data[0].text


@pytest.mark.parametrize(
    "asked",
    [{"rewrite_query": True}, {"ranking_options": {"ranker": "best"}},
     {"ranking_options": {"hybrid_search": {"text_weight": 1, "embedding_weight": 0}}}],
)  # fmt: skip
def test_what_a_search_does_not_do_is_refused(client: Any, store: Any, asked: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        client.vector_stores.search(store.id, query="boats", extra_body=asked)


def test_as_many_results_as_openai_gives(client: Any) -> None:
    """Up to 50, from a search and from a tool; more is refused by name."""
    lines = "\n\n".join(f"## Berth {n}\n\nThe boat at berth {n} pays a fee of {n + 3} crowns." for n in range(60))
    file = client.files.create(file=("fees.md", io.BytesIO(lines.encode())), purpose="assistants")
    cut = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}
    made = client.vector_stores.create(name="Fees", chunking_strategy=cut)
    client.vector_stores.files.create_and_poll(file.id, vector_store_id=made.id, poll_interval_ms=100)
    found = client.vector_stores.search(made.id, query="Which boat pays a fee?", max_num_results=50)
    assert len({one.content[0].text for one in found.data}) == 50
    with pytest.raises(openai.BadRequestError, match="max_num_results"):
        client.vector_stores.search(made.id, query="Which boat pays a fee?", max_num_results=51)
    tool = {"type": "file_search", "vector_store_ids": [made.id], "max_num_results": 50}
    asked = {"model": "smollm2", "input": "Which boat pays a fee?", "max_output_tokens": 16}
    answer = client.responses.create(tools=[tool], include=["file_search_call.results"], **asked)
    assert len({one.text for one in answer.output[0].results}) == 50
    with pytest.raises(openai.BadRequestError) as told:
        client.responses.create(tools=[{**tool, "max_num_results": 51}], **asked)
    assert told.value.param == "tools[0].max_num_results"
    assert "from 1 to 50, and 51 is not" in told.value.message
    client.vector_stores.delete(made.id)


def test_a_broken_file_says_why_and_is_taken_out(client: Any, store: Any) -> None:
    bad = client.files.create(file=("scan.pdf", io.BytesIO(b"%PDF-1.7 no more")), purpose="assistants")
    told = client.vector_stores.files.create_and_poll(bad.id, vector_store_id=store.id, poll_interval_ms=100)
    assert told.status == "failed"
    assert "broken" in told.last_error.message
    assert client.vector_stores.retrieve(store.id).file_counts.failed == 1
    assert client.vector_stores.files.delete(bad.id, vector_store_id=store.id).deleted
    assert client.vector_stores.retrieve(store.id).file_counts.total == 2


def test_stores_are_their_owners(server: Any, client: Any, store: Any) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-other", max_retries=0) as other:
        with pytest.raises(openai.NotFoundError):
            other.vector_stores.search(store.id, query="boats")
        assert store.id not in [one.id for one in other.vector_stores.list().data]
        said = []
        for id in (store.id, "vs_nowhere"):
            tool = {"type": "file_search", "vector_store_ids": [id]}
            for ask in (
                lambda id=id: other.vector_stores.retrieve(id),
                lambda tool=tool: other.responses.create(model="smollm2", input="boats", tools=[tool]),
            ):
                with pytest.raises(openai.NotFoundError) as told:
                    ask()
                said.append(told.value.response.text.replace(id, "ID"))
        assert said[:2] == said[2:]
        assert store.id not in "".join(said)
    assert store.id in [one.id for one in client.vector_stores.list().data]


def test_a_route_grounds_plain_chat(client: Any, harbour: Any) -> None:
    asked = {"model": "helpdesk", "temperature": 0, "max_tokens": 60}
    turns = [{"role": "user", "content": "Who is the harbour master?"}]
    message = client.chat.completions.create(messages=turns, **asked).choices[0].message
    assert "Oldane" in message.content
    note = message.annotations[0]
    assert note.filename in ("bylaws.md", "staff.csv")
    assert message.content[note.index - 1] == "]"
    quote = note.dockyard["quote"]
    text = (BYLAWS if note.filename == "bylaws.md" else "").replace("\n", " ")
    assert not text or quote in text
    turns = [{"role": "user", "content": "What is the salary of Mira Oldane in crowns a month?"}]
    hidden = client.chat.completions.create(messages=turns, **asked).choices[0].message
    assert "4210" not in hidden.content
    chunks = client.chat.completions.create(
        messages=[{"role": "user", "content": "Which colour has the lighthouse of Skagen?"}], stream=True, **asked
    )
    assert "not in the documents" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_file_search_cites_what_it_says(client: Any, store: Any) -> None:
    tool = {"type": "file_search", "vector_store_ids": [store.id], "max_num_results": 3}
    asked = {"model": "smollm2", "tools": [tool], "include": ["file_search_call.results"], "temperature": 0}
    answer = client.responses.create(input="Who is the harbour master?", **asked)
    call, message = answer.output
    assert (call.type, call.status) == ("file_search_call", "completed")
    assert call.queries == ["Who is the harbour master?"]
    assert any("Mira Oldane" in one.text for one in call.results)
    part = message.content[0]
    assert "Oldane" in part.text
    note = part.annotations[0]
    assert note.type == "file_citation"
    assert note.filename in ("bylaws.md", "staff.csv")
    assert note.file_id.startswith("file-")
    assert part.text[note.index - 1] == "]"
    missing = client.responses.create(input="Which colour has the lighthouse of Skagen?", **asked)
    assert "not in the documents" in missing.output_text
    events = list(client.responses.create(input="Who is the harbour master?", stream=True, **asked))
    kinds = [event.type for event in events]
    assert "response.file_search_call.searching" in kinds
    assert "response.output_text.annotation.added" in kinds
    assert events[-1].response.output[1].content[0].annotations
