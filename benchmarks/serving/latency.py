"""What a repeated prefix saves, and what structured output costs."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks._bars import Row, median, spread
from benchmarks._serving import dockyard, post, pull_starter
from benchmarks._streams import CHAT, ask

PREFIXES = 5
SCHEMAS = 200
WORDS = ("harbour", "ship", "crane", "dock", "tide", "rope", "cargo", "pilot")


def prefix_rows() -> Iterator[Row]:
    """A prompt of about 2,000 tokens, new each round, then asked again with another question at its end."""
    for engine in ("llamacpp", "openvino"):
        cold: list[float] = []
        warm: list[float] = []
        cached: list[int] = []
        with _server(engine) as url:
            for number in range(PREFIXES):
                words = random.Random(number).choices(
                    ["harbour", "ship", "crane", "dock", "tide", "rope", "cargo", "pilot"], k=1600
                )
                text = " ".join(words)
                first = ask(url, [_question(text, "Which word came first?")])
                again = ask(url, [_question(text, "Which word came last?")])
                cold.append(first.ttft)
                warm.append(again.ttft)
                cached.append(again.cached[0])
        ratio = median([b / a for a, b in zip(cold, warm, strict=True)])
        said = f"{ratio:.2f} ({spread(warm, '.3f')} s, cold {spread(cold, '.3f')} s)"
        yield Row(f"TTFT of a repeated 2,000-token prefix, {engine}", said, "< 0.3 of cold", ratio < 0.3)
        told = min(cached) > 1000
        yield Row(f"usage says cached_tokens, {engine}", f"at least {min(cached)}", "> 1000", told)


def schema_rows() -> Iterator[Row]:
    """Schemas of growing depth and width; an answer counts if it parses and validates."""
    import jsonschema

    dice = random.Random(11)
    for engine in ("llamacpp", "openvino"):
        valid, spent, tokens, failures = 0, 0.0, 0, []
        with _server(engine) as url:
            free = ask(url, [{**_question("", "Write a JSON object."), "max_tokens": 64}] * 4).rate
            for number in range(SCHEMAS):
                schema = _schema(1 + number * 6 // SCHEMAS, dice)
                began = time.monotonic()
                reply = json.loads(post(url + CHAT, _structured(schema)))
                spent += time.monotonic() - began
                tokens += reply["usage"]["completion_tokens"]
                try:
                    jsonschema.validate(json.loads(reply["choices"][0]["message"]["content"]), schema)
                    valid += 1
                except (ValueError, jsonschema.ValidationError) as error:
                    failures.append(f"{number}: {str(error)[:80]} ({reply['choices'][0]['finish_reason']})")
        said = f"{valid} of {SCHEMAS}" + (f"; first: {failures[0]}" if failures else "")
        yield Row(f"valid JSON for a schema, {engine}", said, str(SCHEMAS), valid == SCHEMAS)
        yield Row(
            f"tokens/s with a schema, {engine}", f"{tokens / spent:.0f} (4 free streams: {free:.0f})", "said", None
        )


@contextmanager
def _server(engine: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        pull_starter(home)
        with dockyard(home) as (url, _):
            options = {"engine": engine, "context": 4096, "parallel": 4}
            post(f"{url}/api/dockyard/load", {"model": "smollm2", "options": options}, timeout=300)
            ask(url, [_question("", "Hello.")])
            yield url


def _question(text: str, question: str) -> dict[str, Any]:
    content = f"{text}\n\n{question}".strip()
    messages = [{"role": "user", "content": content}]
    return {"model": "smollm2", "messages": messages, "max_tokens": 8, "temperature": 0, "ignore_eos": True}


def _structured(schema: dict[str, Any]) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    messages = [{"role": "user", "content": "Describe a ship as JSON."}]
    return {"model": "smollm2", "messages": messages, "max_tokens": 3000, "temperature": 0, "response_format": form}


def _schema(depth: int, dice: random.Random) -> dict[str, Any]:
    """An object ``depth`` levels deep; every leaf is bounded, so that every answer ends."""
    fields = {f"{dice.choice('abcdefgh')}{number}": _field(depth - 1, dice) for number in range(dice.randint(1, 3))}
    return {"type": "object", "properties": fields, "required": sorted(fields), "additionalProperties": False}


def _field(depth: int, dice: random.Random) -> dict[str, Any]:
    if depth > 0 and dice.random() < 0.6:
        return _schema(depth, dice)
    kind = dice.choice(["string", "integer", "boolean", "enum", "array", "null"])
    return {
        "string": {"type": "string", "maxLength": 12},
        "integer": {"type": "integer", "minimum": 0, "maximum": 99},
        "boolean": {"type": "boolean"},
        "enum": {"enum": ["red", "green", "blue"]},
        "array": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
        "null": {"type": "null"},
    }[kind]
