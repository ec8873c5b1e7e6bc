"""The framing between gateway and worker: whole messages out of bytes in any portions."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.engines.frames import (
    MAX_FRAME,
    Cancel,
    Failed,
    Failure,
    Generate,
    Heartbeat,
    Step,
    Stop,
    encode,
    gateway_frames,
    worker_frames,
)
from dockyard.errors import ContextOverflow, DockyardError, EngineError, Overloaded, by_code
from dockyard.types import Chunk, Message, Request, TokenLogprob, Usage

chunks = st.builds(
    Chunk,
    text=st.text(),
    index=st.integers(0, 3),
    finish=st.sampled_from([None, "stop", "length"]),
    usage=st.none() | st.builds(Usage, prompt_tokens=st.integers(0, 9999), cached_tokens=st.integers(0, 99)),
    logprobs=st.none() | st.lists(st.builds(TokenLogprob, token=st.text(), logprob=st.floats(-30, 0)), max_size=2),
)
failures = st.none() | st.builds(Failure, st.sampled_from(["overloaded", "engine_error"]), st.text())
replies = st.one_of(
    st.builds(
        Step,
        st.lists(st.tuples(st.integers(0, 2**40), chunks), max_size=4),
        st.lists(st.tuples(st.integers(0, 99), failures), max_size=3),
    ),
    st.builds(Heartbeat, st.integers(0, 2**50), st.integers(0, 99)),
    st.builds(Failed, st.builds(Failure, st.just("load_failed"), st.text())),
)


@given(st.lists(replies, max_size=5), st.lists(st.integers(1, 40)))
def test_messages_survive_any_portions(messages: list[Step | Heartbeat | Failed], portions: list[int]) -> None:
    data = b"".join(encode(message) for message in messages)
    frames, found = gateway_frames(), []
    for size in portions:
        found += frames.feed(data[:size])
        data = data[size:]
    assert found + frames.feed(data) == messages


def test_every_split_of_a_conversation() -> None:
    request = Request(id="a", messages=(Message(role="user", content="día 👍🏽"),), extra={"tools": [{"a": 1}]})
    messages = [Generate(1, request), Cancel(1), Stop()]
    data = b"".join(encode(message) for message in messages)
    for split in range(len(data) + 1):
        frames = worker_frames()
        assert frames.feed(data[:split]) + frames.feed(data[split:]) == messages


def test_one_byte_at_a_time() -> None:
    step = Step([(7, Chunk("é"))], [(7, None)])
    frames, found = gateway_frames(), []
    for byte in bytes(encode(step)) * 3:
        found += frames.feed(bytes([byte]))
    assert found == [step] * 3


def test_a_frame_beyond_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(EngineError, match="announced"):
        gateway_frames().feed((MAX_FRAME + 1).to_bytes(4, "big"))
    with pytest.raises(EngineError, match="limit"):
        encode(Generate(1, Request(id="a", prompt="x" * (MAX_FRAME + 1))))


@given(st.binary(min_size=1, max_size=60))
def test_noise_is_an_error_or_nothing_never_a_message_of_another_kind(noise: bytes) -> None:
    frame = len(noise).to_bytes(4, "big") + noise
    try:
        found = gateway_frames().feed(frame)
    except EngineError:
        return
    assert all(isinstance(message, msgspec.Struct) for message in found)


@pytest.mark.parametrize("code", ["context_length_exceeded", "overloaded", "worker_crashed", "no_such_code"])
def test_errors_cross_with_class_and_advice(code: str) -> None:
    sent = by_code(code)("what", hint="do this", param="prompt", retry_after=2.5)
    got = Failure.of(sent).error()
    assert type(got) is by_code(code)
    assert (got.message, got.hint, got.param, got.retry_after) == ("what", "do this", "prompt", 2.5)


def test_the_tree_is_searched_to_its_leaves() -> None:
    assert isinstance(Failure.of(ContextOverflow("x")).error(), ContextOverflow)
    assert isinstance(Failure.of(Overloaded("x")).error(), Overloaded)
    assert type(Failure("nonsense", "x").error()) is DockyardError
