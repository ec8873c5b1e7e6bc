"""A gate at "perplexity at most 1 % up" passes INT8 and refuses data-free INT4, of a model that has learnt."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from conftest import small_model, small_tokenizer
from dockyard.cli import call

WORDS = {
    "who": ("The crab", "A sailor", "The pilot", "One gull", "The old captain", "A diver"),
    "does": ("looked for", "painted", "lost", "carried", "counted", "sold"),
    "what": ("seven ropes", "the red buoy", "a small anchor", "two maps", "the last lamp", "a barrel of salt"),
    "where": ("near the pier", "under the bridge", "at the harbour", "on the second deck", "behind the island"),
}
SUITE = """name: harbour
data: harbour.jsonl
text: text
scorers: [perplexity]
"""
GATE = """rules:
  - {metric: perplexity, max_loss: 1%}
"""


def _sentences(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [
        " ".join(" ".join(draw.choice(words) for words in WORDS.values()) + "." for _ in range(4)) for _ in range(count)
    ]


@pytest.fixture
def taught(tmp_path: Path) -> Path:
    """The tiny model after some seconds of lessons in who does what where."""
    import torch

    torch.manual_seed(0)
    tokenizer = small_tokenizer()
    model = small_model(tokenizer).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rows = [tokenizer(text, add_special_tokens=False).input_ids[:64] for text in _sentences(160, 1)]
    for step in range(160):
        batch = torch.tensor([row for row in rows[step * 8 % 152 :][:8] if len(row) == 64])
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path / "taught"
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.timeout(240)
def test_eight_bits_pass_and_four_are_refused(taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "harbour.yaml").write_text(SUITE)
    lines = [json.dumps({"text": text}) for text in _sentences(24, 2)]
    (tmp_path / "harbour.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "gate.yaml").write_text(GATE)
    assert call(["package", str(taught), "taught"]) == 0
    names = ["whole", "int8", "int4"]
    for name, to in zip(names, ("gguf-f16", "gguf-q8_0", "gguf-q4_0"), strict=True):
        assert call(["quantize", "taught", name, "--to", to]) == 0
    for name in names:
        assert call(["eval", "run", str(tmp_path / "harbour.yaml"), name]) == 0
        assert call(["report", "attach", name]) == 0
    capsys.readouterr()
    gate = ["--file", str(tmp_path / "gate.yaml"), "--against", "whole", "--tag", "approved"]
    passed = call(["gate", "int8", *gate])
    said = capsys.readouterr().out
    assert passed == 0, said
    refused = call(["gate", "int4", *gate])
    said = capsys.readouterr().out
    assert refused == 5, said
    assert "perplexity" in said
    assert call(["inspect", "int8:approved"]) == 0
    assert call(["inspect", "int4:approved"]) == 3
