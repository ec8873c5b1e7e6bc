"""Input files of batches, and what comes of them."""

from __future__ import annotations

import json
import time
from typing import Any

import openai

CHAT = "/v1/chat/completions"
OVER = ("completed", "failed", "expired", "cancelled")


def line(name: str, url: str = CHAT, **body: Any) -> dict[str, Any]:
    if url == CHAT:
        body = {"messages": [{"role": "user", "content": f"hello {name}"}], **body}
    return {"custom_id": name, "method": "POST", "url": url, "body": {"model": "echo", **body}}


def jsonl(lines: list[Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


def begin(client: openai.OpenAI, content: bytes, url: str = CHAT, **more: Any) -> Any:
    file = client.files.create(file=("input.jsonl", content), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=url, completion_window="24h", **more)  # type: ignore[arg-type]


def ended(client: openai.OpenAI, batch: Any, seconds: float = 30) -> Any:
    until = time.monotonic() + seconds
    while batch.status not in OVER:
        assert time.monotonic() < until, batch
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    return batch


def rows(client: openai.OpenAI, id: str | None) -> list[Any]:
    return [] if id is None else [json.loads(one) for one in client.files.content(id).text.splitlines()]
