"""What is logged and counted, and what must never be."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re

import pytest
from gateway_help import answer, call, gateway

from dockyard.telemetry import AccessLog, LogRing, configure_logs

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _log_as_before():
    logger = logging.getLogger("dockyard")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


async def test_a_line_for_each_call_without_its_text() -> None:
    sink = io.StringIO()
    gate = gateway()
    gate.parts.telemetry.access = AccessLog(sink)
    await answer(gate, call("my secret prompt"))
    assert sink.getvalue() == ""
    await asyncio.sleep(0.3)
    (line,) = sink.getvalue().splitlines()
    told = json.loads(line)
    assert (told["event"], told["outcome"], told["prompt_tokens"], told["completion_tokens"]) == ("call", "ok", 7, 3)
    assert told["seconds"] >= told["ttft"] > 0
    assert "secret" not in line
    assert "Hello" not in line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_a_terminal_shows_lines_for_people() -> None:
    terminal = Terminal()
    configure_logs("info", stream=terminal)
    logging.getLogger("dockyard.test").info("listening")
    gate = gateway()
    gate.parts.telemetry.access = AccessLog(terminal)
    await answer(gate, call("my secret prompt"))
    gate.parts.telemetry.access.flush()
    event, access = terminal.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO listening", event)
    told = r"\d\d:\d\d:\d\d INFO \S+ \S+ ok: 7\+3 tokens in \d+\.\d\d s, first after \d+\.\d\d s.* \(\S+\)"
    assert re.fullmatch(told, access), access
    assert "secret" not in access


async def test_a_terminal_that_is_gone_is_no_failure() -> None:
    sink = io.StringIO()
    sink.close()
    log = AccessLog(sink)
    gate = gateway()
    gate.parts.telemetry.access = log
    await answer(gate, call())
    log.flush()


def test_logs_are_json_lines_or_plain() -> None:
    log = logging.getLogger("dockyard.test")
    sink = io.StringIO()
    configure_logs("info", stream=sink)
    log.info("hello %s", "you")
    log.debug("not this")
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("it failed")
    first, second = map(json.loads, sink.getvalue().splitlines())
    assert (first["level"], first["message"]) == ("info", "hello you")
    assert "ValueError: broken" in second["exception"]
    plain = io.StringIO()
    configure_logs("warning", json=False, stream=plain)
    log.info("no")
    log.warning("yes")
    assert plain.getvalue().endswith("WARNING yes\n")


async def test_the_ring_keeps_the_end_and_can_be_followed() -> None:
    ring = LogRing(3)
    log = logging.getLogger("dockyard.ring")
    configure_logs("info", stream=io.StringIO(), ring=ring)
    for number in range(5):
        log.info("line %d", number)
    assert [line[-6:] for line in [one async for one in ring.lines()]] == ["line 2", "line 3", "line 4"]
    following = ring.lines(follow=True, tail=1)
    assert (await anext(following)).endswith("line 4")
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    log.info("line 5")
    assert (await asyncio.wait_for(waiting, 5)).endswith("line 5")
    await following.aclose()
    assert not ring._followers
