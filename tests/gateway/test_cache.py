"""Repeated questions with one possible answer are answered from memory."""

from __future__ import annotations

import msgspec
import pytest
from gateway_help import answer, call, gateway, text_of

from dockyard.errors import EngineError
from dockyard.gateway.cache import Answers
from dockyard.types import Call
from scripted import ScriptedFleet, words

pytestmark = pytest.mark.anyio


async def ask(gate: object, one: Call) -> tuple[str, str]:
    return text_of(await answer(gate, one)), one.cache  # type: ignore[arg-type]


async def test_greedy_and_seeded_requests_are_answered_once() -> None:
    fleet = ScriptedFleet()
    gate = gateway(fleet, cache_bytes=10_000)
    assert await ask(gate, call(temperature=0)) == ("Hello world", "miss")
    again = call(temperature=0)
    assert await ask(gate, again) == ("Hello world", "hit")
    assert again.usage.prompt_tokens == 7
    assert len(fleet.requests) == 1
    assert await ask(gate, call(seed=3)) == ("Hello world", "miss")
    assert await ask(gate, call(seed=3)) == ("Hello world", "hit")
    assert await ask(gate, call(seed=4)) == ("Hello world", "miss")
    assert await ask(gate, call("other", seed=3)) == ("Hello world", "miss")
    assert await ask(gate, call()) == ("Hello world", "off")


async def test_it_is_off_by_default() -> None:
    fleet = ScriptedFleet()
    gate = gateway(fleet)
    for _ in range(2):
        assert await ask(gate, call(temperature=0)) == ("Hello world", "off")
    assert len(fleet.requests) == 2


async def test_no_store_is_honoured() -> None:
    gate = gateway(cache_bytes=10_000)
    for _ in range(2):
        one = call(temperature=0)
        one.no_store = True
        assert await ask(gate, one) == ("Hello world", "bypass")
    assert await ask(gate, call(temperature=0)) == ("Hello world", "miss")


async def test_keys_do_not_share_answers() -> None:
    gate = gateway(cache_bytes=10_000, api_keys=("key-one-1", "key-two-2"))
    for key in ("key-one-1", "key-two-2"):
        assert (await ask(gate, call(temperature=0, credential=key)))[1] == "miss"
    assert (await ask(gate, call(temperature=0, credential="key-one-1")))[1] == "hit"


async def test_a_model_that_changed_answers_anew() -> None:
    gate = gateway(cache_bytes=10_000)
    now = ["sha256:a"]
    parts = msgspec.structs.replace(gate.parts, digest=lambda _: now[0])
    gate = type(gate)(parts)
    assert (await ask(gate, call(temperature=0)))[1] == "miss"
    assert (await ask(gate, call(temperature=0)))[1] == "hit"
    now[0] = "sha256:b"
    assert (await ask(gate, call(temperature=0)))[1] == "miss"


async def test_half_an_answer_is_not_kept() -> None:
    fleet = ScriptedFleet(words("a", "b")[:1], error=EngineError("broke"))
    gate = gateway(fleet, cache_bytes=10_000)
    with pytest.raises(EngineError):
        await answer(gate, call(temperature=0))
    async with await gate.run(call(temperature=0)) as reply:
        await anext(aiter(reply.chunks))
    fleet.error, fleet.batches = None, words("a", "b")
    assert await ask(gate, call(temperature=0)) == ("ab", "miss")


def test_the_oldest_answers_make_room() -> None:
    answers = Answers(100)
    for number in range(10):
        answers.put(b"%d" % number, bytes(30))
    assert answers.size <= 100
    assert answers.get(b"9") is not None
    assert answers.get(b"0") is None
    answers.put(b"big", bytes(200))
    assert answers.get(b"big") is None
    answers.put(b"9", bytes(10))
    assert answers.size <= 100
