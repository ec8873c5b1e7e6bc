"""The walk of a call: the order of steps, and that nothing stays behind however it ends."""

from __future__ import annotations

import asyncio

import pytest
from gateway_help import answer, call, gateway, text_of

from dockyard.errors import EngineError, Forbidden, ModelNotFound, Overloaded, RateLimited, Unauthorized
from dockyard.gateway import pipeline
from dockyard.gateway.reserve import Bucket
from scripted import REFERENCE, USAGE, ScriptedFleet, words

pytestmark = pytest.mark.anyio


async def test_a_call_walks_all_steps_and_learns_what_it_took() -> None:
    fleet = ScriptedFleet()
    gate = gateway(fleet)
    one = call()
    chunks = await answer(gate, one)
    assert text_of(chunks) == "Hello world"
    assert [step.name for step in one.steps] == [
        "identify",
        "reserve",
        "backend",
        "screen",
        "prompt",
        "ground",
        "cache",
        "route",
    ]
    assert [step.outcome for step in one.steps] == ["ok"] * 7 + ["answered"]
    assert (one.reference, one.usage, one.finish) == (REFERENCE, USAGE, "stop")
    assert one.principal is not None
    assert one.first_token is not None
    assert (fleet.held, fleet.generating, gate.load.active) == (0, 0, 0)


def test_the_pipeline_can_be_read() -> None:
    assert [(way, name) for way, name, _ in pipeline()] == [
        *(
            ("inbound", name)
            for name in ("identify", "reserve", "backend", "screen", "prompt", "ground", "cache", "route")
        ),
        ("outbound", "prompt"),
        ("outbound", "ground"),
        ("outbound", "screen"),
        ("outbound", "meter"),
    ]
    assert all(text for _, _, text in pipeline())


async def test_closing_early_frees_everything() -> None:
    fleet = ScriptedFleet(words(*"abcdef"), gap=0.001)
    gate = gateway(fleet)
    one = call()
    async with await gate.run(one) as reply:
        assert (await anext(aiter(reply.chunks)))[0].text == "a"
        assert (fleet.held, fleet.generating, gate.load.active) == (1, 1, 1)
    assert (fleet.held, fleet.generating, gate.load.active) == (0, 0, 0)
    assert one.usage.completion_tokens == 1
    assert gate.parts.telemetry.ends == {(REFERENCE, "test", "cancelled"): 1}


async def test_a_reply_that_nobody_reads_frees_everything() -> None:
    fleet = ScriptedFleet()
    gate = gateway(fleet)
    reply = await gate.run(call())
    assert fleet.held == 1
    await reply.aclose()
    await reply.aclose()
    assert (fleet.held, gate.load.active) == (0, 0)


async def test_cancelling_while_the_model_loads_frees_the_place() -> None:
    class Loading(ScriptedFleet):
        async def lease(self, name, kind="chat", **more):
            await asyncio.sleep(60)

    gate = gateway(Loading())
    task = asyncio.create_task(gate.run(call()))
    await asyncio.sleep(0.01)
    assert gate.load.active == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gate.load.active == 0


async def test_an_engine_that_fails_mid_answer_is_counted_by_its_code() -> None:
    gate = gateway(ScriptedFleet(words("a", "b", finish="stop")[:1], error=EngineError("broke")))
    with pytest.raises(EngineError, match="broke"):
        await answer(gate, call())
    assert gate.load.active == 0
    assert gate.parts.telemetry.ends == {(REFERENCE, "test", "engine_error"): 1}


async def test_a_model_that_is_not_there_has_no_label_of_its_own() -> None:
    gate = gateway(ScriptedFleet(refuses=ModelNotFound("no such model")))
    for number in range(3):
        with pytest.raises(ModelNotFound):
            await answer(gate, call(model=f"made-up-{number}"))
    assert gate.parts.telemetry.ends == {("(other)", "test", "model_not_found"): 3}


async def test_no_more_calls_than_allowed_are_under_way() -> None:
    gate = gateway(max_requests=2)
    replies = [await gate.run(call()) for _ in range(2)]
    with pytest.raises(Overloaded) as refused:
        await gate.run(call())
    assert refused.value.retry_after
    await replies.pop().aclose()
    replies.append(await gate.run(call()))
    for reply in replies:
        await reply.aclose()
    assert gate.load.active == 0


async def test_a_draining_gateway_refuses_and_waits() -> None:
    gate = gateway(ScriptedFleet(words("a", "b", "c"), gap=0.02))
    reply = await gate.run(call())
    drained = asyncio.create_task(gate.drain(5))
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded, match="stopping"):
        await gate.run(call())
    assert text_of([chunk async for batch in reply.chunks for chunk in batch]) == "abc"
    assert not drained.done()
    await reply.aclose()
    assert await drained


async def test_draining_gives_up_on_time() -> None:
    gate = gateway()
    reply = await gate.run(call())
    assert not await gate.drain(0.05)
    await reply.aclose()


async def test_each_key_has_its_own_bucket() -> None:
    gate = gateway(api_keys=("key-one-1", "key-two-2"), requests_per_minute=2)
    for _ in range(2):
        await answer(gate, call(credential="key-one-1"))
    with pytest.raises(RateLimited) as refused:
        await answer(gate, call(credential="key-one-1"))
    assert 0 < (refused.value.retry_after or 0) <= 30
    await answer(gate, call(credential="key-two-2"))


def test_a_bucket_refills_evenly_and_never_overflows() -> None:
    bucket = Bucket(60.0, 0.0)
    assert all(bucket.take(60, 0.0) == 0 for _ in range(60))
    assert bucket.take(60, 0.0) == pytest.approx(1.0)
    assert bucket.take(60, 0.5) == pytest.approx(0.5)
    assert bucket.take(60, 1.0) == 0
    assert bucket.take(60, 1e6) == 0
    assert bucket.tokens <= 59


async def test_keys_are_needed_where_there_are_keys() -> None:
    gate = gateway(api_keys=("infer-key-1", "manage-key:manage"))
    for wrong in (None, "", "wrong", "infer-key-1 ", "manage-key:manage"):
        with pytest.raises(Unauthorized):
            await answer(gate, call(credential=wrong))
    one = call(credential="infer-key-1")
    await answer(gate, one)
    assert one.principal is not None
    assert one.principal.scopes == {"infer"}
    other = call(credential="manage-key")
    await answer(gate, other)
    assert other.principal is not None
    assert other.principal.scopes == {"infer", "manage"}
    assert "infer-key-1" not in str(one.principal)


async def test_a_key_for_some_models_opens_no_others() -> None:
    from dockyard.gateway.keyring import Keyring, digest
    from dockyard.settings import Settings
    from dockyard.state import StoredKey
    from dockyard.types import Principal

    class Source:
        async def keys(self) -> list[StoredKey]:
            principal = Principal(name="bob", models=("smol*", "ai/x"))
            expired = Principal(name="old")
            return [
                StoredKey(digest=digest("bobs-secret"), principal=principal, requests_per_minute=9),
                StoredKey(digest=digest("old-secret"), principal=expired, expires=1.0),
            ]

    gate = gateway()
    gate.parts.keyring._source = Source()  # the gateway reads keys through this door
    keyring = gate.parts.keyring
    assert isinstance(keyring, Keyring)
    await answer(gate, call(model="smollm2", credential="bobs-secret"))
    with pytest.raises(Forbidden, match="may not use model"):
        await answer(gate, call(model="other", credential="bobs-secret"))
    with pytest.raises(Unauthorized, match="expired"):
        await answer(gate, call(credential="old-secret"))
    assert keyring.limit(Principal(name="bob")) == 9
    assert keyring.limit(Principal(name="else")) == Settings().requests_per_minute
