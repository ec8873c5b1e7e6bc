"""Weights of OpenVINO IR compressed by NNCF: INT8, INT4 data-free, INT4 with AWQ and scale estimation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from dockyard.ops import Job
from dockyard.ops._libraries import library

PIECE = 16
"""Tokens that go through the graph at once. NNCF keeps the mean of what a layer sees in one pass, so that whole runs
would leave it a handful of vectors to fit a layer's many factors to."""
MEANS = 128
"""Of those means, how many the fits are held against."""


class Compression(Protocol):
    """What of the quantize operation's parameters counts here."""

    to: str
    group_size: int
    symmetric: bool
    ratio: float


def compress_ir(job: Job, params: Any, runs: Sequence[Sequence[int]], folder: Path) -> None:
    """Compress the model in ``folder`` in place. ``runs`` are token ids of calibration text, for AWQ."""
    nncf, openvino = library("nncf"), library("openvino")
    graph = openvino.Core().read_model(folder / "openvino_model.xml")
    modes = nncf.CompressWeightsMode
    job.note(f"compressing to {params.to.removeprefix('openvino-')}; NNCF takes a while")
    if params.to == "openvino-int8":
        made = nncf.compress_weights(graph, mode=modes.INT8_ASYM)
    else:
        made = nncf.compress_weights(
            graph,
            mode=modes.INT4_SYM if params.symmetric else modes.INT4_ASYM,
            group_size=params.group_size,
            ratio=params.ratio,
            **_with_text(nncf, graph, runs),
        )
    part = folder / "openvino_model.part.xml"
    openvino.save_model(made, part, compress_to_fp16=False)
    del graph, made
    for suffix in (".xml", ".bin"):
        part.with_suffix(suffix).replace(folder / f"openvino_model{suffix}")
    job.note("compressed")


def _with_text(nncf: Any, graph: Any, runs: Sequence[Sequence[int]]) -> dict[str, Any]:
    if not runs:
        return {}
    given = [piece for run in runs for piece in _pieces(nncf, run, {port.any_name for port in graph.inputs})]
    advanced = library("nncf.quantization.advanced_parameters")
    return {
        "dataset": nncf.Dataset(given),
        "subset_size": len(given),
        "awq": True,
        "scale_estimation": True,
        "advanced_parameters": advanced.AdvancedCompressionParameters(
            awq_params=advanced.AdvancedAWQParameters(subset_size=MEANS),
            scale_estimation_params=advanced.AdvancedScaleEstimationParameters(subset_size=MEANS),
        ),
    }


def _pieces(nncf: Any, run: Sequence[int], names: Collection[str]) -> Iterator[dict[str, Any]]:
    """A run as the graph takes it: a few tokens at a time, each after all before it, which the graph's state holds."""
    import numpy as np

    for at in range(0, len(run), PIECE):
        piece = run[at : at + PIECE]
        found = {
            "input_ids": np.array([list(piece)], np.int64),
            "attention_mask": np.ones((1, at + len(piece)), np.int64),
            "position_ids": np.arange(at, at + len(piece), dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        yield {
            **{name: value for name, value in found.items() if name in names},
            nncf.definitions.NNCF_DATASET_RESET_STATE_KEY: at == 0,
        }
