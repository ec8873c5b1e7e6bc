"""Weights of OpenVINO IR compressed by NNCF: INT8, INT4 data-free, INT4 with AWQ and scale estimation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from dockyard.ops import Job
from dockyard.ops._libraries import library


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
    import numpy as np

    if not runs:
        return {}
    names = {port.any_name for port in graph.inputs}

    def given(run: Sequence[int]) -> dict[str, Any]:
        found = {
            "input_ids": np.array([list(run)], np.int64),
            "attention_mask": np.ones((1, len(run)), np.int64),
            "position_ids": np.arange(len(run), dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        return {name: value for name, value in found.items() if name in names}

    return {"dataset": nncf.Dataset([given(run) for run in runs]), "awq": True, "scale_estimation": True}
