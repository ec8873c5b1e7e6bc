"""How much a GGUF model takes and how many share it, without loading one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.engines import LoadPlan, create
from dockyard.engines._llama_flags import Flags
from dockyard.engines._llama_plan import FALLBACK_KV, kv_bytes
from dockyard.errors import InvalidRequest, SettingsError
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import LoadOptions, ModelFacts, ModelFiles

GIB = 1 << 30
SMALL = ModelFacts(
    format="gguf", context=8192, layers=30, heads=9, kv_heads=3, head_size=64, embedding=576, feed_forward=1536,
    vocabulary=49152, weight_bytes=97 << 20,
)  # fmt: skip
LARGE = ModelFacts(
    format="gguf", context=131072, layers=32, heads=32, kv_heads=8, embedding=4096, feed_forward=14336,
    vocabulary=128256, weight_bytes=5 * GIB,
)  # fmt: skip


def plan(facts: ModelFacts, memory: int, settings: dict[str, Any] | None = None, **options: Any) -> LoadPlan:
    files = ModelFiles(
        reference="x", digest="sha256:0", directory="/x", format="gguf", weights=("/x/a.gguf",), facts=facts
    )
    machine = Hardware(cores=2, memory_total=memory, memory_available=memory)
    found = Settings(native_llama=False, **(settings or {}))
    return create("llamacpp").plan(files, LoadOptions(**options), found, machine)


def test_a_small_model_with_room_serves_sixteen() -> None:
    found = plan(SMALL, 24 * GIB)
    assert (found.context, found.parallel, found.details["pool"], found.threads) == (8192, 16, 8192, 2)
    assert found.predicted.kv_cache == 8192 * 30 * 3 * 64 * 2 * 2


def test_little_memory_means_a_shorter_window_and_fewer_at_once() -> None:
    roomy, tight, tiny = plan(SMALL, 24 * GIB), plan(SMALL, 1 * GIB), plan(SMALL, 400 << 20)
    assert roomy.context == tight.context == 8192
    assert tiny.context < 8192
    assert tiny.parallel < roomy.parallel
    assert tiny.predicted.total < 400 << 20


def test_what_was_asked_for_holds_whatever_it_takes() -> None:
    found = plan(LARGE, 2 * GIB, context=32768, parallel=3, threads=7)
    assert (found.context, found.parallel, found.threads) == (32768, 3, 7)
    assert found.details["pool"] >= 32768
    assert found.predicted.total > 2 * GIB


def test_options_win_over_settings() -> None:
    settings = {"context": 4096, "parallel": 2, "threads": 1}
    assert plan(SMALL, 8 * GIB, settings).context == 4096
    assert plan(SMALL, 8 * GIB, settings).parallel == 2
    assert plan(SMALL, 8 * GIB, settings, context=1024, parallel=5, threads=3).threads == 3


@given(
    st.integers(256 << 20, 64 * GIB),
    st.sampled_from([SMALL, LARGE, ModelFacts(format="gguf")]),
    st.none() | st.integers(1, 64),
)
def test_it_always_adds_up(memory: int, facts: ModelFacts, parallel: int | None) -> None:
    found = plan(facts, memory, parallel=parallel)
    assert found.details["pool"] >= found.context >= 1
    assert found.parallel == parallel if parallel else 1 <= found.parallel <= 16
    assert found.context <= (facts.context or 8192)
    assert found.predicted.total > facts.weight_bytes


@pytest.mark.parametrize(
    ("facts", "flags", "kept"),
    [
        ({"architecture": "llama"}, {}, 8192 * 30 * 3 * 64 * 2 * 2),
        ({"architecture": "llama"}, {"prompt_cache": 0}, 0),
        ({"architecture": "llama"}, {"prompt_cache": 5 << 20}, 5 << 20),
        ({"architecture": "qwen3next"}, {}, 0),
        ({"architecture": "qwen3next"}, {"prompt_cache": 5 << 20}, 5 << 20),
        ({}, {}, 0),
    ],
)
def test_conversations_that_are_over_are_kept_beside_the_pool(
    facts: dict[str, str], flags: dict[str, Any], kept: int
) -> None:
    """As many bytes as the pool has, where a copy of keys and values is all that there is; they are held for it."""
    named = msgspec.structs.replace(SMALL, **facts)
    found = plan(named, 24 * GIB, flags=flags)
    assert found.details["prompt_cache"] == kept
    assert found.predicted.kv_cache - plan(named, 24 * GIB, flags={"prompt_cache": 0}).predicted.kv_cache == kept


def test_conversations_that_are_over_take_no_more_than_there_is() -> None:
    named = msgspec.structs.replace(SMALL, architecture="llama")
    assert 0 < plan(named, 700 << 20, context=8192).details["prompt_cache"] < 8192 * 30 * 3 * 64 * 2 * 2
    assert plan(named, 700 << 20, context=8192).predicted.total < 700 << 20
    assert plan(named, 128 << 20, context=8192).details["prompt_cache"] == 0


def test_headers_that_say_little_are_taken_for_a_large_model() -> None:
    assert kv_bytes(ModelFacts(format="gguf"), Flags()) == FALLBACK_KV
    assert kv_bytes(LARGE, Flags()) == 32 * 8 * 128 * 4
    assert kv_bytes(LARGE, Flags(cache_type_k="q8_0", cache_type_v="q8_0")) == 32 * 8 * 128 * 2 * 34 / 32


def test_a_window_beyond_training_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="trained on 8192 tokens"):
        plan(SMALL, 8 * GIB, context=8193)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"ngl": 3}, "ngl"),
        ({"model": "/etc/passwd"}, "model"),
        ({"cache_type_k": "q9"}, "q9"),
        ({"kv_tokens": "many"}, "kv_tokens"),
        ({"kv_tokens": 512}, "less than the context"),
        ({"native": True}, "no llama-server"),
        ({"gpu_layers": 3}, "gpu_layers"),
    ],
)
def test_flags_are_an_allow_list(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        plan(SMALL, 8 * GIB, flags=flags)


def test_a_named_server_that_is_not_there_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="llama_server"):
        plan(SMALL, 8 * GIB, {"llama_server": str(tmp_path / "none")})


def test_a_plan_survives_the_trip_to_the_worker() -> None:
    found = plan(SMALL, 8 * GIB, flags={"cache_type_k": "q8_0"})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=LoadPlan) == found
