"""A gate at "perplexity at most 1 % up", on SmolLM2-135M as it is served: INT8 passes, data-free INT4 is refused.

Served by llama.cpp as GGUF's Q8_0 and Q4_0, since likelihoods of a prompt are what it tells and OpenVINO does not. The
gate decides by the interval's worse end, so the held-out pages are cut into as many texts as some minutes allow.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks._bars import Row
from benchmarks.refit._material import STARTER, carried, prose
from dockyard.cli import call

SUITE = "name: prose\ndata: prose.jsonl\ntext: text\nscorers: [perplexity]\n"
GATE = "rules:\n  - {metric: perplexity, max_loss: 1%}\n"
TEXTS, LENGTH = 60, 400


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["DOCKYARD_HOME"] = str(folder / "home")
        (folder / "prose.yaml").write_text(SUITE)
        cuts = [page[at : at + LENGTH] for at in range(0, 9000, LENGTH) for page in prose()[1]]
        texts = [text for text in cuts if len(text) == LENGTH][:TEXTS]
        (folder / "prose.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        (folder / "gate.yaml").write_text(GATE)
        assert call(["package", str(carried(*STARTER)), "smollm2"]) == 0
        for name, to in (("whole", "gguf-f16"), ("int8", "gguf-q8_0"), ("int4", "gguf-q4_0")):
            assert call(["quantize", "smollm2", name, "--to", to]) == 0
            assert call(["eval", "run", str(folder / "prose.yaml"), name]) == 0
            assert call(["report", "attach", name]) == 0
        gate = ["--file", str(folder / "gate.yaml"), "--against", "whole"]
        codes = {name: call(["gate", name, *gate]) for name in ("int8", "int4")}
        yield Row(
            "the gate's answer to INT8", "passed" if codes["int8"] == 0 else "refused", "passed", codes["int8"] == 0
        )
        yield Row("and to data-free INT4", "refused" if codes["int4"] == 5 else "passed", "refused", codes["int4"] == 5)
