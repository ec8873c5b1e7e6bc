"""What fewer bits cost SmolLM2-135M, on text that nothing was calibrated with.

The base is the starter model in half floats: its Q4_1 weights, dequantised. AWQ, scale estimation and QAT-LoRA look
at text that the model wrote itself. Speed is of one greedy answer in the engine that serves the format.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

from benchmarks._bars import Row, median, spread
from benchmarks.refit._chart import Bar, draw, figures, keep
from benchmarks.refit._material import shelf
from benchmarks.refit._measures import held_out, make, perplexity, size, speeds
from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Store
from dockyard.ops._checkpoint import open_tokenizer

PAGE = "quantisation"


def rows() -> Iterator[Row]:
    """IR: INT8, and INT4 with and without AWQ and scale estimation."""
    with shelf() as store:
        lost = yield from _table(store, "openvino", ("openvino-int8", "openvino-int4", "openvino-int4-awq"))
        yield Row("INT8's cost in perplexity", f"{lost['openvino-int8']:+.2%}", "< 1 %", lost["openvino-int8"] < 0.01)
        share = lost["openvino-int4-awq"] / lost["openvino-int4"]
        yield Row("INT4 with AWQ and scale estimation, of data-free's loss", f"{share:.0%}", "<= 60 %", share <= 0.6)


def trained_rows() -> Iterator[Row]:
    """IR: INT4 by QAT-LoRA beside data-free INT4."""
    with shelf() as store:
        lost = yield from _table(store, "openvino", ("openvino-int4", "openvino-int4-qat"))
        share = lost["openvino-int4-qat"] / lost["openvino-int4"]
        yield Row("INT4 by QAT-LoRA, of data-free's loss", f"{share:.0%}", "-", None)


def gguf_rows() -> Iterator[Row]:
    """GGUF's types."""
    with shelf() as store:
        names = ("gguf-q8_0", "gguf-q6_k", "gguf-q4_k_m", "gguf-q4_1", "gguf-q4_0")
        yield from _table(store, "gguf", names)


def _table(store: Store, kind: str, recipes: Sequence[str]) -> Generator[Row, None, dict[str, float]]:
    base = f"{kind}-f16"
    make(store, "quantize", "smollm2", base, to=base)
    runs = held_out(open_tokenizer(model_files(store, "smollm2")))
    whole = perplexity(store, base, runs)
    yield Row(base, f"perplexity {whole:.3f} on {len(runs)} held-out texts of {len(runs[0])} tokens", "-", None)
    lost = {base: 0.0}
    for to in recipes:
        make(store, "quantize", "smollm2", to, to=to)
        lost[to] = perplexity(store, to, runs) / whole - 1
        yield Row(f"{to}: perplexity", f"{lost[to]:+.2%}, {size(store, to):.0f} MB", "-", None)
    found = figures(PAGE)
    for name, share in lost.items():
        found[name] = {**found.get(name, {}), "lost": share, "megabytes": size(store, name)}
    _written(found)
    return lost


def _written(found: dict[str, Any]) -> None:
    keep(PAGE, found)
    bars = [
        Bar(
            name,
            max(0.0, found[name]["lost"]),
            f"{found[name]['lost']:+.1%}, {found[name]['megabytes']:.0f} MB",
            int(not name.startswith("openvino")),
        )
        for name in sorted(found, key=lambda name: -found[name]["megabytes"])
    ]
    draw(PAGE, "Perplexity lost by SmolLM2-135M, and size of its weights", bars)


def speed_rows() -> Iterator[Row]:
    """Tokens a second of all recipes that were measured, each format's in its engine."""
    with shelf() as store:
        kept = figures(PAGE)
        for kind, engine in (("openvino", "openvino"), ("gguf", "llamacpp")):
            names = [name for name in kept if name.startswith(kind)]
            for name in names:
                make(store, "quantize", "smollm2", name, to=name)
            for name, found in speeds(store, dict.fromkeys(names, engine)).items():
                kept[name]["tokens_per_second"] = median(found)
                yield Row(f"{name}: tokens a second", f"{spread(found)}", "-", None)
        _written(kept)
