"""llama-server's arguments as Model Runner passes them on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.engines._llama_arguments import flags_from_arguments
from dockyard.engines._llama_flags import Flags
from dockyard.engines._llama_request import ACCEPTS
from dockyard.errors import InvalidRequest, UnsupportedParameter
from dockyard.types import LoadOptions, Sampling


def test_what_a_compose_file_says() -> None:
    options, defaults = flags_from_arguments(
        ["--ctx-size", "4096", "--temp=0.7", "--threads", "4", "-np", "2", "--jinja", "--cache-type-k", "q8_0"]
    )
    assert options == LoadOptions(context=4096, threads=4, parallel=2, flags={"cache_type_k": "q8_0"})
    assert defaults == {"temperature": 0.7}


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--embeddings", "--pooling", "cls"], LoadOptions(mode="embed", flags={"pooling": "cls"})),
        (["--pooling", "mean"], LoadOptions(mode="embed", flags={"pooling": "mean"})),
        (["--rerank"], LoadOptions(mode="rerank")),
        (["-c", "0", "-t", "-1", "--seed", "-1", "-n", "-1"], LoadOptions()),
        (["-c", "1024", "-c", "2048"], LoadOptions(context=2048)),
        (["--cache_type_k", "f16"], LoadOptions(flags={"cache_type_k": "f16"})),
        (["-cram", "64"], LoadOptions(flags={"prompt_cache": 64 << 20})),
        (["-ngl", "all", "--no-mmap"], LoadOptions(flags={"gpu_layers": 999, "load_mode": "none"})),
        (["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "3"],
         LoadOptions(flags={"spec_type": "ngram-simple", "spec_ngram_size_n": 3})),
    ],
)  # fmt: skip
def test_how_to_load(arguments: list[str], options: LoadOptions) -> None:
    assert flags_from_arguments(arguments)[0] == options


@pytest.mark.parametrize(
    ("arguments", "defaults"),
    [
        (["--top-k", "5", "--top-p", "0.5", "--min-p", "0"], {"top_k": 5, "top_p": 0.5, "min_p": 0.0}),
        (["-l", "12-1", "-l", "15+2.5"], {"logit_bias": {"12": -1.0, "15": 2.5}}),
        (["-r", "User:", "-r", "Bot:"], {"stop": ["User:", "Bot:"]}),
        (["--samplers", "top_k;min_p"], {"samplers": ["top_k", "min_p"]}),
        (["--reasoning", "off", "--chat-template-kwargs", '{"a": 1}'],
         {"chat_template_kwargs": {"enable_thinking": False, "a": 1}}),
        (["--reasoning-budget", "0"], {"thinking_budget_tokens": 0}),
    ],
)  # fmt: skip
def test_what_requests_get(arguments: list[str], defaults: dict[str, Any]) -> None:
    options, found = flags_from_arguments(arguments)
    assert found == defaults
    assert options == LoadOptions()
    assert set(found) <= set(Sampling.__struct_fields__) | ACCEPTS


@pytest.mark.parametrize(
    "argument",
    ["--model", "-m", "--host", "--port", "--lora", "--mmproj", "--log-file", "--api-key", "--tools", "--rpc",
     "--slot-save-path", "--media-path", "--chat-template-file", "--grammar-file", "--model-draft", "--nonsense"],
)  # fmt: skip
def test_what_reaches_files_or_the_network_is_refused_by_name(argument: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        flags_from_arguments([argument, "x"])
    assert caught.value.param == argument


@pytest.mark.parametrize(
    "arguments",
    [["--temp", "hot"], ["--temp", "nan"], ["--ctx-size"], ["4096"], ["--grammar", "/etc/passwd"], ["-c", "-7"],
     ["--chat-template-kwargs", "[1]"], ["--cache-type-k", "q9"], ["--spec-type", "draft-simple"], ["-l", "5"],
     ["--reasoning", "maybe"], ["--json-schema", "{"], ["--grammar=a\\b"]],
)  # fmt: skip
def test_bad_values_are_refused(arguments: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        flags_from_arguments(arguments)


@given(st.lists(st.sampled_from(["--temp", "-c", "--jinja", "--embeddings", "-l", "--x", "1", "0.5", "a/b", "="])))
def test_it_reads_or_refuses(arguments: list[str]) -> None:
    try:
        options, defaults = flags_from_arguments(arguments)
    except InvalidRequest:
        return
    assert set(options.flags) <= set(Flags.__struct_fields__)
    assert set(defaults) <= set(Sampling.__struct_fields__) | ACCEPTS
