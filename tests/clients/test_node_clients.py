"""The Node clients that people use, unchanged, against a real server."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clients_help import KEY

from suite_results import node_version

SCRIPTS = Path(__file__).parent / "node"
pytestmark = pytest.mark.timeout(600)


def run(modules: Path, server: Any, script: str, folder: Path) -> Any:
    """What the script found out. Node looks for packages beside the script, so it is run from a copy there."""
    node = shutil.which("node")
    assert node is not None
    copy = modules / f"{folder.name}-{script}"
    copy.write_text((SCRIPTS / script).read_text())
    try:
        done = subprocess.run(
            [node, str(copy), server.url, KEY], capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        copy.unlink()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_openais_client(
    suites_node: Path, server: Any, tmp_path: Path, record: Callable[[str, str, str], None]
) -> None:
    assert run(suites_node, server, "openai_client.mjs", tmp_path) == {
        "whole": "one two three",
        "streamed": "one two three",
        "tokens": 3,
        "legacy": "a b",
        "models": ["smol", "echo"],
        "tool": "5.5",
        "parsed": {"x": 7, "label": "home"},
        "embedding": [4, 4],
        "flagged": True,
        "error": [400, "temperature", "BadRequestError"],
    }
    what = "chat, streams, tools, structured output, completions, embeddings, moderations"
    record("openai (Node)", node_version(suites_node, "openai"), what)


def test_the_vercel_ai_sdk(
    suites_node: Path, server: Any, tmp_path: Path, record: Callable[[str, str, str], None]
) -> None:
    assert run(suites_node, server, "vercel.mjs", tmp_path) == {
        "whole": ["one two three", "stop", 3],
        "streamed": "one two three",
        "tokens": 3,
        "tool": [2, "sunny in Oslo"],
        "streamedTool": ["sunny in Oslo", True],
        "object": {"x": 7, "label": "home"},
        "reasoning": ["The user sent 2 words.", "a b"],
        "embeddings": [128, 128],
        "error": [404, "model_not_found"],
    }
    both = f"{node_version(suites_node, 'ai')} with provider {node_version(suites_node, '@ai-sdk/openai-compatible')}"
    record("Vercel AI SDK (ai)", both, "text, streams, tools in steps, objects, reasoning, embeddings")
