"""A conversation: its turns, its commands, and what survives an answer that was stopped."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from dockyard.cli._output import ago, count, size
from dockyard.cli._session import Answer, Session
from dockyard.client import AsyncClient
from dockyard.errors import InvalidRequest, WorkerCrashed
from dockyard.types import Usage


class Model:
    """An app that answers with the words it was given, one an event, and stays silent after ``stall`` of them."""

    def __init__(self, words: list[str], *, stall: int | None = None, error: bool = False) -> None:
        self.words, self.stall, self.error = words, stall, error
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
            return
        self.asked.append(json.loads((await receive())["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for at, word in enumerate(self.words):
            if at == self.stall:
                await receive()
                return
            await self._event(send, {"choices": [{"delta": {"content": word}}]})
        if self.error:
            await self._event(send, {"error": {"message": "the worker died", "code": "worker_crashed"}})
            return
        usage = {"prompt_tokens": 7, "completion_tokens": len(self.words)}
        await self._event(send, {"choices": [{"delta": {}, "finish_reason": "stop"}]})
        await self._event(send, {"choices": [], "usage": usage})

    async def _event(self, send: Any, event: Any) -> None:
        await send(
            {"type": "http.response.body", "body": b"data: " + json.dumps(event).encode() + b"\n\n", "more_body": True}
        )


async def talk(session: Session, model: Model, text: str) -> tuple[Answer, str]:
    shown: list[str] = []
    async with AsyncClient(app=model) as client:
        answer = await session.ask(client, text, lambda piece, _: shown.append(piece))
    return answer, "".join(shown)


@pytest.mark.anyio
async def test_turns_are_remembered_and_the_system_prompt_leads() -> None:
    model, session = Model(["Hi", " there"]), Session("m", system="Be brief.", sampling={"seed": 1})
    answer, shown = await talk(session, model, "hello")
    assert (answer.text, answer.finish, shown) == ("Hi there", "stop", "Hi there")
    assert answer.usage.completion_tokens == 2
    await talk(session, model, "again")
    assert [turn["role"] for turn in model.asked[1]["messages"]] == ["system", "user", "assistant", "user"]
    assert model.asked[1]["seed"] == 1
    assert "tokens/s" in answer.line()


@pytest.mark.anyio
async def test_a_stopped_answer_is_kept_as_far_as_it_came() -> None:
    model, session = Model(["one", " two", " three"], stall=2), Session("m")
    async with AsyncClient(app=model) as client:
        second = asyncio.Event()
        asking = asyncio.create_task(session.ask(client, "count", lambda piece, _: piece == " two" and second.set()))
        await second.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert [turn["content"] for turn in session.turns] == ["count", "one two"]


@pytest.mark.anyio
async def test_a_failed_answer_without_text_leaves_no_turn() -> None:
    session = Session("m")
    with pytest.raises(WorkerCrashed):
        await talk(session, Model([], error=True), "hello")
    assert session.turns == []


def test_commands_steer_the_session() -> None:
    session = Session("m", turns=[{"role": "user", "content": "x"}])
    assert session.command("/set temperature 0.5") == "Set: temperature 0.5"
    assert session.command("/set max_tokens 9") == "Set: temperature 0.5, max_tokens 9"
    assert session.command("/set temperature default") == "Set: max_tokens 9"
    assert session.sampling == {"max_tokens": 9}
    assert session.command("/system You are a cat.") == "System prompt: You are a cat."
    assert session.system == "You are a cat."
    assert session.command("/system none") == "System prompt: none"
    assert session.command("/stats") == "There is no answer yet."
    assert "/bye" in (session.command("/help") or "")
    session.command("/clear")
    assert session.turns == []
    assert session.command("/bye") is None


@pytest.mark.parametrize("line", ["/frobnicate", "/set warmth 1", "/set seed soon"])
def test_wrong_commands_say_what_is_right(line: str) -> None:
    with pytest.raises(InvalidRequest):
        Session("m").command(line)


def test_speed_counts_the_tokens_after_the_first() -> None:
    answer = Answer(usage=Usage(completion_tokens=11), ttft=1.0, seconds=2.0)
    assert answer.speed == pytest.approx(10.0)
    assert Answer(usage=Usage(completion_tokens=1), ttft=1.0, seconds=2.0).speed is None


def test_sizes_counts_and_times_read_well() -> None:
    assert [size(n) for n in (0, 999, 98_362_799, 1_500_000_000, None)] == ["0 B", "999 B", "98.4 MB", "1.5 GB", "-"]
    assert size(999_999) == "1.0 MB"
    assert [count(n) for n in (12, 134_515_008, 7_000_000_000, None)] == ["12", "134.5M", "7B", "-"]
    assert [ago(now, now=1000.0) for now in (999.0, 940.0, 100.0, None)] == [
        "1 second ago",
        "60 seconds ago",
        "15 minutes ago",
        "-",
    ]
