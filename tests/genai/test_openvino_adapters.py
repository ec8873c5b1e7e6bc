"""Adapters by name on one base: each answer is its own adapter's, and what would be ignored is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockyard.engines import IsolatedEngine
from dockyard.errors import InvalidRequest
from dockyard.types import Adapter

from .conftest import chat, loaded, run, said, together

pytestmark = pytest.mark.model
PROMPTS = ("Tell me about the sea.", "What is a cat?")


@pytest.fixture(scope="module")
def exact(starter_gguf: Path, home: Path) -> Iterator[IsolatedEngine]:
    """Computes in 32 bits, so that an answer does not hang on who else is in the batch."""
    flags = {"precision": "f32", "kv_precision": "f32"}
    yield from loaded(starter_gguf, home, context=512, parallel=16, threads=2, flags=flags)


def test_interleaved_answers_are_those_of_each_adapter_alone(
    exact: IsolatedEngine, make_adapter: Callable[..., Adapter]
) -> None:
    adapters = [None, *(make_adapter(seed) for seed in range(3))]
    requests = [chat(prompt, adapter=adapter) for prompt in PROMPTS for adapter in adapters]
    alone = [said(run(exact, request)) for request in requests]
    assert len(set(alone)) == len(alone), "the adapters must have an effect, or nothing is tried here"
    assert together(exact, [*requests, *reversed(requests)]) == [*alone, *reversed(alone)]


def test_scale_nothing_is_the_base(exact: IsolatedEngine, make_adapter: Callable[..., Adapter]) -> None:
    made = make_adapter(7)
    off = Adapter(name=made.name, path=made.path, digest=made.digest, scale=0.0)
    base, without, with_it = (said(run(exact, chat(PROMPTS[0], adapter=each))) for each in (None, off, made))
    assert base == without != with_it


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"layers": 31}, "no module for its tensor"),
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "IA3"}, "peft_type IA3"),
        ({"alpha_pattern": {"q_proj": 4}}, "differ between modules"),
        ({"r": "eight"}, "adapter_config.json"),
    ],
)
def test_what_would_not_be_computed_as_peft_does_is_refused(
    exact: IsolatedEngine, make_adapter: Callable[..., Adapter], changes: dict[str, object], match: str
) -> None:
    with pytest.raises(InvalidRequest, match=match):
        run(exact, chat("hi", adapter=make_adapter(1, **changes)))


def test_an_adapter_that_is_not_there_is_refused(exact: IsolatedEngine, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"there is no adapter_model\.safetensors"):
        run(exact, chat("hi", adapter=Adapter(name="x", path=str(tmp_path), digest="sha256:x")))
