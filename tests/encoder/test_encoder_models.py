"""The real models that embed and rank, in a worker, behind the seam that the fleet uses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from encoder_samples import ask, cosine, files, floats, prepare

from dockyard.artifact.reference import parse
from dockyard.artifact.store import Store
from dockyard.engines import choose
from dockyard.errors import ContextOverflow, InvalidRequest, UnsupportedFormat, UnsupportedParameter
from dockyard.fleet.prepare import model_files
from dockyard.fleet.runner import Runner
from dockyard.hardware import detect
from dockyard.ops.pack import Sources, package
from dockyard.settings import Settings
from dockyard.types import LoadOptions, Request

pytest.importorskip("onnxruntime", reason="the extra `encoder` is not installed")
pytestmark = [pytest.mark.anyio, pytest.mark.model]

QUERY = "How many people live in Berlin?"
DOCUMENTS = (
    "Berlin has a population of 3,520,031 registered inhabitants in an area of 891.82 square kilometers.",
    "New York City is famous for the Metropolitan Museum of Art.",
    "Berlin is well known for its museums.",
)


@pytest.fixture(scope="module")
async def bge(encoders: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runner]:
    runner, plan = prepare(files(encoders / "bge_small_en"), tmp_path_factory.mktemp("logs") / "bge.log", threads=2)
    assert (plan.engine, plan.context) == ("encoder", 512)
    await runner.start()
    yield runner
    await runner.stop()


@pytest.fixture(scope="module")
async def reranker(encoders: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runner]:
    runner, _ = prepare(files(encoders / "reranker_en"), tmp_path_factory.mktemp("logs") / "rank.log", threads=2)
    await runner.start()
    yield runner
    await runner.stop()


async def test_texts_of_one_meaning_are_near(bge: Runner) -> None:
    texts = ("A dog runs in the park", "A puppy is running outside", "The stock market fell sharply today")
    chunk = await ask(bge, kind="embed", inputs=texts)
    assert chunk.result is not None
    one, near, far = chunk.result.vectors
    assert len(floats(one)) == 384
    assert sum(value * value for value in floats(one)) == pytest.approx(1.0, abs=1e-5)
    assert cosine(one, near) > 0.78
    assert cosine(one, far) < 0.45
    assert chunk.finish == "stop"
    assert chunk.usage is not None
    assert chunk.usage.prompt_tokens == 8 + 7 + 8


async def test_a_vector_does_not_depend_on_who_else_asks(bge: Runner) -> None:
    """This graph quantises by the range of all that it is given: in one batch these would differ by a percent."""
    texts = [" ".join(["the quick brown fox"] * (1 + number % 7)) + f" {number}" for number in range(24)]
    alone = [await ask(bge, kind="embed", inputs=(text,)) for text in texts]
    crowd = await asyncio.gather(*(ask(bge, id=f"c{n}", kind="embed", inputs=(t, *texts)) for n, t in enumerate(texts)))
    for number, chunk in enumerate(crowd):
        assert chunk.result is not None
        for place, other in enumerate((number, *range(len(texts)))):
            known = alone[other].result
            assert known is not None
            assert cosine(known.vectors[0], chunk.result.vectors[place]) > 0.99999


async def test_what_is_too_long_is_refused_or_cut_and_told(bge: Runner) -> None:
    text = "word " * 600
    with pytest.raises(ContextOverflow, match=r"input 1 has 602 tokens.* 512") as caught:
        await ask(bge, kind="embed", inputs=("fine", text))
    assert "truncate" in (caught.value.hint or "")
    whole = await ask(bge, kind="embed", inputs=("word " * 510,))
    for side in (True, "END", "start"):
        chunk = await ask(bge, kind="embed", inputs=(text,), extra={"truncate": side})
        assert chunk.truncated == 90
        assert chunk.usage is not None
        assert chunk.usage.prompt_tokens == 512
        assert chunk.result is not None
        assert whole.result is not None
        assert cosine(chunk.result.vectors[0], whole.result.vectors[0]) > 0.99999
    assert whole.truncated == 0


async def test_what_is_wrong_is_named(bge: Runner) -> None:
    for fields, param in (
        ({"inputs": ("fine", "")}, "input"),
        ({"inputs": ([101, 40_000],)}, "input"),
        ({"inputs": ("x",), "extra": {"dimensions": 385}}, "dimensions"),
        ({"inputs": ("x",), "extra": {"truncate": "middle"}}, "truncate"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            await ask(bge, kind="embed", **fields)
        assert caught.value.param == param
    with pytest.raises(UnsupportedParameter, match="temperature"):
        await ask(bge, kind="embed", inputs=("x",), extra={"temperature": 1})
    with pytest.raises(InvalidRequest, match="chat"):
        await ask(bge, kind="chat", inputs=("x",))


async def test_tokens_go_there_and_back(bge: Runner) -> None:
    found = (await ask(bge, kind="tokenize", prompt="Hello world")).result
    assert found is not None
    assert found.tokens == (101, 7592, 2088, 102)
    bare = (await ask(bge, kind="tokenize", prompt="Hello world", extra={"add_special_tokens": False})).result
    assert bare is not None
    assert bare.tokens == (7592, 2088)
    assert (await ask(bge, kind="detokenize", prompt=[7592, 2088])).text == "hello world"
    text = (await ask(bge, kind="embed", inputs=("Hello world",))).result
    ids = (await ask(bge, kind="embed", inputs=(list(found.tokens),))).result
    assert text == ids


async def test_the_first_dimensions_of_a_vector(bge: Runner) -> None:
    whole = (await ask(bge, kind="embed", inputs=("Hello world",))).result
    short = (await ask(bge, kind="embed", inputs=("Hello world",), extra={"dimensions": 64})).result
    assert whole is not None
    assert short is not None
    assert len(floats(short.vectors[0])) == 64
    assert cosine(whole.vectors[0][: 4 * 64], short.vectors[0]) == pytest.approx(1.0, abs=1e-5)
    assert sum(value * value for value in floats(short.vectors[0])) == pytest.approx(1.0, abs=1e-5)


async def test_a_model_that_embeds_also_ranks(bge: Runner) -> None:
    found = (await ask(bge, kind="rerank", query=QUERY, inputs=DOCUMENTS)).result
    assert found is not None
    assert found.scores[0] == max(found.scores)
    assert all(-1 <= score <= 1 for score in found.scores)


async def test_a_cross_encoder_ranks(reranker: Runner) -> None:
    chunk = await ask(reranker, kind="rerank", query=QUERY, inputs=DOCUMENTS)
    assert chunk.result is not None
    assert chunk.result.scores == pytest.approx((9.4, -11.2, -4.1), abs=0.4)  # INT8 differs from machine to machine
    assert chunk.usage is not None
    assert chunk.usage.prompt_tokens == 74
    alone = [(await ask(reranker, kind="rerank", query=QUERY, inputs=(each,))).result for each in DOCUMENTS]
    assert [each.scores[0] for each in alone if each] == pytest.approx(chunk.result.scores, abs=1e-3)


async def test_a_long_document_is_cut_and_a_long_query_refused(reranker: Runner) -> None:
    document = DOCUMENTS[0] + " filler" * 600
    chunk = await ask(reranker, kind="rerank", query=QUERY, inputs=(document,))
    assert chunk.result is not None
    assert chunk.usage is not None
    assert chunk.usage.prompt_tokens == 512
    assert chunk.truncated > 100
    assert chunk.result.scores[0] > 5
    clipped = await ask(reranker, kind="rerank", query=QUERY, inputs=(document,), extra={"max_tokens_per_doc": 30})
    assert clipped.usage is not None
    assert clipped.usage.prompt_tokens == 7 + 3 + 30
    with pytest.raises(ContextOverflow, match="query alone"):
        await ask(reranker, kind="rerank", query="filler " * 600, inputs=DOCUMENTS)
    with pytest.raises(ContextOverflow, match="document 0"):
        await ask(reranker, kind="rerank", query=QUERY, inputs=(document,), extra={"truncate": False})


async def test_a_cross_encoder_has_no_embeddings(reranker: Runner) -> None:
    with pytest.raises(InvalidRequest, match="scores pairs"):
        await ask(reranker, kind="embed", inputs=("x",))


async def test_hanging_up_frees_the_lanes(bge: Runner) -> None:
    many = Request(id="many", kind="embed", inputs=("word " * 500,) * 400)
    stream = bge.generate(many)
    task = asyncio.ensure_future(stream.__anext__())
    await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await stream.aclose()
    async with asyncio.timeout(20):  # 400 of those would take longer
        assert (await ask(bge, kind="embed", inputs=("short",))).result is not None


async def test_memory_stays_near_what_was_predicted(encoders: Path, tmp_path: Path) -> None:
    runner, plan = prepare(files(encoders / "bge_small_en"), tmp_path / "log", threads=2)
    await runner.start()
    await asyncio.gather(*(ask(runner, id=f"m{n}", kind="embed", inputs=("word " * 500,) * 2) for n in range(4)))
    await asyncio.sleep(2.5)  # the next heartbeat
    measured = runner.rss() or 0
    await runner.stop()
    assert 0.5 * plan.predicted.total < measured < 1.15 * plan.predicted.total


def test_packaged_and_chosen(encoders: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    package(store, Sources(weights=(encoders / "reranker_en",)), reference=parse("ai/rank:1"))
    model = model_files(store, "ai/rank:1")
    assert model.facts.capabilities == ("rerank",)
    chosen = choose(model, LoadOptions(), Settings(), detect(), "rerank")
    assert chosen.engine.name == "encoder"
    assert chosen.engine.plan(model, LoadOptions(), Settings(), detect()).context == 512
    with pytest.raises(UnsupportedFormat, match="does not serve 'chat'"):
        choose(model, LoadOptions(), Settings(), detect(), "chat")
