"""What ``compatibility.py`` asks with: for each field of OpenAI's API one value or more, and what must go with it.

A value says nothing about the answer: that is found by asking.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Labelled(NamedTuple):
    """A value that is too long to be shown."""

    label: str
    value: Any


USER = [{"role": "user", "content": "get_weather in 'Oslo' for 3 days, and the time now"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]
FLAT_TOOLS = [{"type": "function", **tool["function"], "strict": False} for tool in TOOLS]  # type: ignore[dict-item]
SCHEMA = {"type": "object", "properties": {"days": {"type": "integer"}}, "required": ["days"],
          "additionalProperties": False}  # fmt: skip
STRICT = {"name": "stay", "schema": SCHEMA, "strict": True}
PICTURE = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
SOUND = {"data": "UklGRg==", "format": "wav"}
NAMED = {"type": "function", "function": {"name": "now"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}
CUSTOM = {"type": "custom", "custom": {"name": "shell"}}
EXPIRES = {"anchor": "created_at", "seconds": 3600}


def said(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


COMMON: dict[str, list[Any]] = {
    "frequency_penalty": [0.5], "presence_penalty": [0.5], "logit_bias": [{"5": -100}], "max_tokens": [2], "n": [2],
    "seed": [7], "stop": ["Oslo", ["a", "b"]], "stream": [True], "temperature": [0.3], "top_p": [0.5], "user": ["me"],
    "metadata": [{"a": "b"}], "service_tier": ["flex"], "store": [True, False], "prompt_cache_key": ["k"],
    "prompt_cache_options": [{"mode": "explicit"}], "prompt_cache_retention": ["24h"], "safety_identifier": ["me"],
    "moderation": [{"model": "omni-moderation-latest"}], "parallel_tool_calls": [False], "top_logprobs": [3],
    "model": ["echo", "no-such-model"],
    "stream_options": [
        {"include_usage": True}, {"include_usage": True, "continuous_usage_stats": True},
        {"include_obfuscation": False},
    ],
}  # fmt: skip

FIELDS: dict[str, dict[str, list[Any]]] = {
    "chat": {
        "messages": [
            Labelled("text parts", said({"type": "text", "text": "Hello"})),
            Labelled("image_url with a data: URL", said({"type": "image_url", "image_url": {"url": PICTURE}})),
            Labelled("input_audio", said({"type": "input_audio", "input_audio": SOUND})),
            Labelled("image_url elsewhere", said({"type": "image_url", "image_url": {"url": "https://example.com/a"}})),
            Labelled("file", said({"type": "file", "file": {"file_id": "file-1"}})),
        ],
        "audio": [{"voice": "alloy", "format": "wav"}],
        "functions": [[TOOLS[0]["function"]]],
        "function_call": ["auto"],
        "logprobs": [True],
        "max_completion_tokens": [2],
        "modalities": [["text"], ["text", "audio"]],
        "prediction": [{"type": "content", "content": "x"}],
        "reasoning_effort": ["low", "none"],
        "response_format": [
            Labelled("json_schema", {"type": "json_schema", "json_schema": STRICT}), {"type": "json_object"},
            {"type": "text"},
        ],
        "tools": [Labelled("functions", TOOLS), Labelled("custom", [CUSTOM])],
        "tool_choice": ["none", "required", Labelled("a function", NAMED), Labelled("allowed_tools", ALLOWED)],
        "verbosity": ["low"],
        "web_search_options": [{"search_context_size": "low"}],
    },
    "completions": {
        "prompt": ["Hello", ["a", "b"], [1, 2, 3]],
        "best_of": [3],
        "echo": [True],
        "logprobs": [2],
        "suffix": ["the end"],
    },
    "responses": {
        "access_programs": [{"cyber": "standard"}],
        "background": [True],
        "background_options": [{"completion_window": "soonest"}],
        "context_management": [[{"type": "compaction", "compact_threshold": 10000}]],
        "conversation": ["CONVERSATION"],
        "image": [{"context_compression": "auto"}],
        "include": [["reasoning.encrypted_content"], ["message.output_text.logprobs"]],
        "input": [
            Labelled("items", said({"type": "input_text", "text": "Hello"})),
            Labelled("input_image", said({"type": "input_image", "image_url": PICTURE, "detail": "auto"})),
        ],
        "instructions": ["Be brief"],
        "max_output_tokens": [20],
        "max_tool_calls": [1],
        "previous_response_id": ["RESPONSE"],
        "prompt": [{"id": "pmpt_1"}],
        "reasoning": [{"effort": "low"}, {"effort": "low", "summary": "auto"}],
        "stream_options": [{"include_obfuscation": False}],
        "text": [Labelled("json_schema", {"format": {"type": "json_schema", **STRICT}}), {"verbosity": "low"}],
        "tools": [
            Labelled("functions", FLAT_TOOLS), Labelled("web_search", [{"type": "web_search"}]),
            Labelled("mcp", [{"type": "mcp", "server_label": "x", "server_url": "https://x"}]),
        ],
        "tool_choice": ["none", "required", Labelled("a function", {"type": "function", "name": "now"})],
        "truncation": ["auto"],
        "personality": ["friendly"],
        "include_obfuscation": [False],
        "starting_after": [1],
        "after": ["ITEM"],
        "limit": [1],
        "order": ["asc"],
    },
    "embeddings": {"input": ["x", ["a", "b"], [1, 2], [[1], [2]]], "dimensions": [8], "encoding_format": ["float"]},
    "moderations": {
        "input": ["a forbidden word", ["a", "b"], Labelled("text parts", [{"type": "text", "text": "x"}]),
                  Labelled("image_url", [{"type": "image_url", "image_url": {"url": PICTURE}}])],
        "model": ["omni-moderation-latest", "no-such-model"],
    },
    "models": {},
    "files": {
        "file": [("b.jsonl", b'{"other": 1}\n')], "purpose": ["user_data"], "expires_after": [EXPIRES],
        "after": ["FILE"], "limit": [1], "order": ["asc"],
    },
    "batches": {
        "completion_window": ["24h"], "endpoint": ["/v1/chat/completions", "/v1/embeddings", "/v1/responses"],
        "input_file_id": ["FILE"], "output_expires_after": [EXPIRES], "after": ["BATCH"], "limit": [1],
    },
}  # fmt: skip

WITH: dict[tuple[str, str], dict[str, Any]] = {
    ("chat", "stream_options"): {"stream": True},
    ("completions", "stream_options"): {"stream": True},
    ("responses", "stream_options"): {"stream": True},
    ("responses", "background_options"): {"background": True},
    ("responses", "starting_after"): {"stream": True},
    ("responses", "include_obfuscation"): {"stream": True},
    ("chat", "top_logprobs"): {"logprobs": True},
    ("chat", "tool_choice"): {"tools": TOOLS},
    ("chat", "parallel_tool_calls"): {"tools": TOOLS},
    ("responses", "top_logprobs"): {"include": ["message.output_text.logprobs"]},
    ("responses", "tool_choice"): {"tools": FLAT_TOOLS},
    ("responses", "parallel_tool_calls"): {"tools": FLAT_TOOLS},
}
