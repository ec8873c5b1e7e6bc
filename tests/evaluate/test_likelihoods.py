"""Log-likelihoods of the real model as it is served: by token ids, by text, in windows; and what a load takes."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dockyard.api import create_app
from dockyard.artifact.packing import pack_files
from dockyard.artifact.reference import parse
from dockyard.artifact.store import Store
from dockyard.client import AsyncClient
from dockyard.errors import InvalidRequest, NotFound
from dockyard.ops.bench.resources import energy_of
from dockyard.ops.evaluate.asking import Served, windows
from dockyard.ops.evaluate.speed import LOAD, speed
from dockyard.ops.evaluate.suite import Suite
from dockyard.scorers import Item
from dockyard.settings import Settings

TEXT = "A ship in a harbour is safe, but that is not what ships are for."
BEGIN = "<|im_start|>"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory, starter_gguf: Path) -> AsyncIterator[AsyncClient]:
    home = tmp_path_factory.mktemp("likelihoods")
    pack_files(Store(home / "store"), {starter_gguf.name: starter_gguf}, reference=parse("smollm2"), link=True)
    async with AsyncClient(app=create_app(Settings(home=str(home)), trusted=True)) as found:
        yield found


class Silent:
    """A server that knows no token ids: what any other server of OpenAI's API is."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def call(self, method: str, path: str, body: Mapping[str, Any]) -> Any:
        if path == "/tokenize":
            raise NotFound("no such path")
        return await self._client.call(method, path, body)


class Whole:
    """A server that scores prompts as a whole or not at all."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self.refused = 0

    async def call(self, method: str, path: str, body: Mapping[str, Any]) -> Any:
        if "logprob_start_len" in body:
            self.refused += 1
            raise InvalidRequest("unknown field 'logprob_start_len'")
        return await self._client.call(method, path, body)


def served(client: Any, **fields: Any) -> Served:
    given = {"delimiter": " ", "choices": "c", "label": "l", **fields}
    return Served(client, "smollm2", Suite(name="s", data="d", scorers=("perplexity",), **given))


@pytest.mark.model
@pytest.mark.anyio
async def test_the_likeliest_continuation_by_ids_and_by_text(client: AsyncClient) -> None:
    item = Item(id="1", prompt="The sky is", choices=("seven", "blue", "a spoon"), label=1)
    by_ids = (await served(client).likelihoods(item)).likelihoods
    assert max(by_ids, key=lambda each: each.logprob) is by_ids[1]
    assert [each.tokens for each in by_ids] == [1, 1, 2]
    by_text = (await served(Silent(client)).likelihoods(item)).likelihoods
    for one, two in zip(by_ids, by_text, strict=True):
        assert (one.tokens, one.greedy) == (two.tokens, two.greedy)
        assert one.logprob == pytest.approx(two.logprob, rel=0.1)  # 4-bit weights: who goes together, rounds alike
    whole = Whole(client)
    asks = served(whole)
    by_whole = (await asks.likelihoods(item)).likelihoods
    assert [each.tokens for each in by_whole] == [each.tokens for each in (await asks.likelihoods(item)).likelihoods]
    assert whole.refused == 1
    for one, two in zip(by_ids, by_whole, strict=True):
        assert one.logprob == pytest.approx(two.logprob, rel=0.1)
    with pytest.raises(InvalidRequest, match="nothing goes before"):
        await served(client).continuations("", ("x y",))
    (begun,) = await served(client, prefix=BEGIN).continuations("", ("x y",))
    assert begun.tokens > 1


@pytest.mark.model
@pytest.mark.anyio
async def test_a_text_is_read_token_by_token_in_windows(client: AsyncClient) -> None:
    item, found = Item(id="1", text=TEXT), []
    for more in ({}, {"prefix": BEGIN}, {"prefix": BEGIN, "window": 16}):
        answer = await served(client, choices=None, label=None, text="t", **more).likelihoods(item)
        found += answer.likelihoods
    alone, begun, cut = found
    assert begun.tokens == cut.tokens == alone.tokens + 1
    assert math.exp(-begun.logprob / begun.tokens) < 60
    assert cut.logprob < begun.logprob  # less context, less sure


@pytest.mark.model
@pytest.mark.anyio
async def test_what_a_load_takes_of_the_machine(client: AsyncClient) -> None:
    import msgspec

    told = await speed(client, "smollm2", msgspec.structs.replace(LOAD, streams=2, requests=2, tokens=8))
    assert (told["answers"], told["tokens"]) == (2, 16)
    assert told["memory_peak"] > 50 << 20
    assert told["cpu_seconds"] > 0


def test_windows_score_each_token_once() -> None:
    assert windows([1, 2, 3, 4, 5], 0, 3) == [[0, 1, 2], [2, 3, 4], [4, 5]]
    assert windows([1, 2, 3, 4, 5], None, 16) == [[1, 2, 3, 4, 5]]
    assert windows([1], None, 16) == []


def test_energy_is_read_where_there_are_counters(tmp_path: Path) -> None:
    assert energy_of(tmp_path) is None
    for name, count in (("intel-rapl:0", 5), ("intel-rapl:0:0", 3)):
        zone = tmp_path / name
        zone.mkdir()
        (zone / "energy_uj").write_text(f"{count}\n")
        (zone / "max_energy_range_uj").write_text("100\n")
    assert energy_of(tmp_path) == {"intel-rapl:0": (5, 100)}
