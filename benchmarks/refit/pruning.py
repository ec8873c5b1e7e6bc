"""What pruning costs and what gets faster, on SmolLM2-135M: one shot, no recovery, held-out text.

Wanda and the structured methods look at text that the model wrote itself. Speed is of one greedy answer, the pruned
model against the base in the same engine, rounds alternating.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks._bars import Row, median
from benchmarks.refit._chart import Bar, draw
from benchmarks.refit._material import shelf
from benchmarks.refit._measures import held_out, make, perplexity, speeds
from dockyard.artifact.lineage import attached
from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Store
from dockyard.ops._checkpoint import open_tokenizer
from dockyard.ops.prune import ARTIFACT_TYPE

METHODS: dict[str, dict[str, Any]] = {
    "magnitude-50": {"method": "magnitude"},
    "wanda-50": {"method": "wanda"},
    "wanda-24": {"method": "wanda", "pattern": "2:4"},
    "depth-2": {"method": "depth", "layers": 2},
    "depth-4": {"method": "depth", "layers": 4},
    "width-1280": {"method": "width", "width": 1280},
    "heads-1": {"method": "heads", "groups": 1},
}
TIMED = ("wanda-50", "depth-4", "width-1280", "heads-1")


def rows() -> Iterator[Row]:
    with shelf() as store:
        make(store, "convert", "smollm2", "base", to="safetensors")
        runs = held_out(open_tokenizer(model_files(store, "smollm2")))
        before = perplexity(store, "base", runs)
        found = {}
        yield Row("dense", f"perplexity {before:.2f} on {len(runs)} held-out texts", "-", None)
        for name, params in METHODS.items():
            make(store, "prune", "base", name, **params)
            found[name] = perplexity(store, name, runs)
            report = _report(store, name)
            kept = report["parameters_after"] / report["parameters_before"]
            told = f"perplexity {found[name]:.2f}, {kept:.1%} of the weights, zlib to {report['deflated']:.2f}"
            yield Row(name, told, "-", None)
        bars = [Bar(name, each, f"{each:.1f}", int("-50" in name or "24" in name)) for name, each in found.items()]
        whole = Bar("whole", before, f"{before:.1f}")
        title = "Perplexity of SmolLM2-135M pruned in one shot (logarithmic)"
        draw("pruning", title, [whole, *bars], least=before / 1.5, logarithmic=True)
        ratio = found["magnitude-50"] / found["wanda-50"]
        yield Row("magnitude's perplexity at 50 %, of Wanda's", f"{ratio:.1f}x", ">= 5x", ratio >= 5)


def speed_rows() -> Iterator[Row]:
    with shelf() as store:
        make(store, "convert", "smollm2", "base", to="safetensors")
        for name in TIMED:
            make(store, "prune", "base", name, samples=4, tokens=128, **METHODS[name])
        for engine, to in (("llamacpp", "gguf-q8_0"), ("openvino", "openvino-int8")):
            yield from _timed(store, engine, to)


def _timed(store: Store, engine: str, to: str) -> Iterator[Row]:
    names = {}
    for name in ("base", *TIMED):
        try:
            make(store, "quantize", name, f"{name}-{engine}", to=to)
            names[f"{name}-{engine}"] = engine
        except Exception as error:  # noqa: BLE001  an engine that can't take a shape is a finding
            print(f"    {name} in {engine}: {error}", file=sys.stderr, flush=True)
            yield Row(f"{name} in {engine}", f"not served: {error}"[:150], "-", None)
    speed = speeds(store, names)
    base = speed[f"base-{engine}"]
    for name in TIMED:
        own = speed.get(f"{name}-{engine}")
        if own is None:
            continue
        ratio = median([mine / dense for mine, dense in zip(own, base, strict=True)])
        told = f"{ratio:.2f}x ({median(own):.0f} against {median(base):.0f} tokens/s)"
        barred = name == "depth-4"
        bar = "> 1" if barred else "-"
        yield Row(f"{name} in {engine} ({to})", told, bar, ratio > 1 if barred else None)


def _report(store: Store, name: str) -> dict[str, Any]:
    (referrer,) = store.referrers(store.resolve(name).digest, ARTIFACT_TYPE)
    return dict(json.loads(attached(store, referrer)))
