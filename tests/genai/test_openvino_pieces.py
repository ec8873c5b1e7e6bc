"""The parts of the openvino engine that need no model: turns by adapter, stop strings, prefixes, plans and refusals."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.engines import create
from dockyard.engines._openvino_plan import refusal
from dockyard.engines._openvino_prefix import Prefixes
from dockyard.engines._openvino_request import Prompter
from dockyard.engines._openvino_text import Stops
from dockyard.engines._openvino_turns import Turns
from dockyard.errors import InvalidRequest
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import LoadOptions, Request

from .conftest import files_of

MACHINE = Hardware(cores=2, memory_total=16 << 30, memory_available=12 << 30)
ARRIVALS = st.lists(st.tuples(st.floats(0, 2), st.sampled_from("abcd"), st.integers(1, 5)), min_size=1, max_size=60)


@given(ARRIVALS)
def test_turns_never_mix_adapters_and_starve_nobody(arrivals: list[tuple[float, str, int]]) -> None:
    """Each step takes a tenth of a second, and a request so many steps; newcomers come for as long as they like."""
    turns: Turns[int] = Turns(seconds=1.0)
    now, waiting = 0.0, []
    for number, (gap, key, steps) in enumerate(arrivals):
        now += gap / 10
        waiting.append((now, key, number, steps))
    clock, running, keys, came, started = 0.0, {}, {}, {}, {}
    while waiting or running or len(turns):
        while waiting and waiting[0][0] <= clock:
            at, key, number, steps = waiting.pop(0)
            turns.add(key, number, at)
            keys[number], came[number] = key, (at, steps)
        for number in turns.take(len(running), clock):
            running[number] = came[number][1]
            started[number] = clock
        assert len({keys[number] for number in running}) <= 1
        assert running or not len(turns), "nobody runs although somebody waits"
        running = {number: left - 1 for number, left in running.items() if left > 1}
        clock += 0.1
    assert len(started) == len(arrivals)
    # Three other groups may go first; each has a second's turn and then its longest answer, half a second.
    assert all(started[number] - came[number][0] <= 4 * (1.0 + 0.5 + 0.2) for number in started)


@given(st.text(alphabet="abc", max_size=40), st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3),
       st.lists(st.integers(0, 40), max_size=6))  # fmt: skip
def test_a_text_is_cut_at_its_first_stop_however_it_comes(text: str, strings: list[str], cuts: list[int]) -> None:
    stops = Stops(tuple(strings))
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    told = ""
    for start, end in itertools.pairwise(places):
        told += stops.add(text[start:end])
        if stops.hit is not None:
            break
    else:
        told += stops.end()
    ends = [text.find(each) + len(each) for each in strings if each in text]
    if not ends:
        assert (told, stops.hit) == (text, None)
    else:
        assert stops.hit in strings
        assert text.startswith(told + stops.hit)
        assert not any(each in told for each in strings)


def test_whole_blocks_of_a_prefix_count_and_the_oldest_go() -> None:
    prefixes = Prefixes(4)
    first = list(range(100))
    assert prefixes.cached(first) == 0
    prefixes.add(first)
    assert prefixes.cached(first) == 96
    assert prefixes.cached([*first[:40], 7, 7]) == 32
    assert prefixes.cached(first[:64]) == 63, "the last token of a prompt is always computed"
    prefixes.add(list(range(1000, 1128)))
    assert prefixes.cached(first) == 0
    assert Prefixes(0).cached(first) == 0


@pytest.mark.parametrize(
    ("flags", "param"),
    [
        ({"nonsense": 1}, "flags"),
        ({"kv_precision": "q2"}, "flags"),
        ({"kv_precision": "bf16", "precision": "q8"}, "flags.kv_precision"),
        ({"kv_precision": "bf16", "precision": "f32"}, "flags.kv_precision"),
        ({"step_tokens": 1}, "flags.step_tokens"),
        ({"kv_tokens": 64}, "flags"),
    ],
)
def test_flags_are_an_allow_list(starter_gguf: Path, flags: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        create("openvino").plan(files_of(starter_gguf), LoadOptions(flags=flags), Settings(), MACHINE)
    assert caught.value.param == param


def test_the_plan_fits_what_was_asked_and_what_is_there(starter_gguf: Path) -> None:
    files = files_of(starter_gguf)
    plan = create("openvino").plan(files, LoadOptions(context=1024, parallel=4, threads=1), Settings(), MACHINE)
    assert (plan.context, plan.parallel, plan.threads) == (1024, 4, 1)
    assert plan.predicted.kv_cache == pytest.approx((4096 + 32) * 13680)
    small = msgspec.structs.replace(MACHINE, memory_available=700 << 20)
    assert create("openvino").plan(files, LoadOptions(), Settings(), small).predicted.total < 700 << 20
    with pytest.raises(InvalidRequest, match="trained on 8192"):
        create("openvino").plan(files, LoadOptions(context=9000), Settings(), MACHINE)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"architecture": "gemma3"}, "architectures llama, qwen2, qwen3"),
        ({"tokenizer": "BPE (llama-bpe)"}, "would tokenise otherwise"),
        ({"capabilities": ("embed",)}, "does not generate"),
    ],
)
def test_models_that_would_be_wrong_are_refused(starter_gguf: Path, facts: dict[str, object], why: str) -> None:
    files = files_of(starter_gguf)
    assert refusal(files) is None
    changed = msgspec.structs.replace(files, facts=msgspec.structs.replace(files.facts, **facts))
    assert why in (refusal(changed) or "")


class _Begins:
    """A tokenizer whose model begins with token 1; a character is a token."""

    chat_template = "{{ messages }}"

    def encode(self, text: str, add_special_tokens: bool) -> SimpleNamespace:
        ids = [1] * add_special_tokens + [ord(each) for each in text]
        return SimpleNamespace(input_ids=SimpleNamespace(data=np.array([ids])))


def test_what_a_model_begins_with_is_left_out_where_it_is_asked_for() -> None:
    prompter = Prompter(_Begins(), None, 64)
    asked = Request(id="t", kind="tokenize", prompt="ab")
    assert prompter.tokens(asked) == [1, 97, 98]
    assert prompter.tokens(asked, special=False) == [97, 98]
