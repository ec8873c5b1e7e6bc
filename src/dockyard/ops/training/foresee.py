"""What training will take: an estimate from the base's header and the parameters, before anything is opened."""

from __future__ import annotations

from typing import Literal

from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Store
from dockyard.errors import InvalidRequest
from dockyard.ops._checkpoint import parameters
from dockyard.ops.planning import PROCESS, Cost, forward_seconds
from dockyard.ops.training.nf4 import LOOKED_AT
from dockyard.ops.training.options import AdapterParams, TrainParams

ADAM = 16
"""Bytes for each learnt weight in float32: itself, its gradient and two moments."""
LENGTH = 512
"""Tokens of the longest example where none is said and the model takes as many."""
NF4 = 0.57
"""Bytes of a weight in NF4 with doubly quantised scales."""


def length_of(store: Store, params: TrainParams, *models: str) -> int:
    """Tokens of the longest example: what the parameters say, else ``LENGTH`` or what fits the windows of all models.

    Raises InvalidRequest where the parameters say more than a model was made to see at once.
    """
    length = LENGTH if params.length is None else params.length
    for model in models:
        files = model_files(store, model)
        window = files.facts.context
        if window is None or length <= window:
            continue
        if params.length is not None:
            raise InvalidRequest(
                f"examples of {length} tokens do not fit the window of {files.reference}, which is {window}",
                param="length",
                hint=f"--length {window}, or less",
            )
        length = window
    return length


def cost(
    store: Store,
    base: str,
    params: TrainParams,
    method: Literal["adapter", "packed", "full"],
    *,
    models: float = 1.0,
    passes: float = 3.0,
    size: int | None = None,
) -> Cost:
    """Memory, disk and time of a training run.

    ``models`` counts copies of the base in memory, ``passes`` the forward passes that a step is worth (forward 1,
    backward 2); ``size`` is the number of weights where it is not the base's. Raises InvalidRequest for examples that
    the base's window does not hold.
    """
    length = length_of(store, params, *([base] if size is None else []))
    files = model_files(store, base)
    count = size if size is not None else parameters(files)
    width, layers = files.facts.embedding or 1024, files.facts.layers or 24
    vocabulary = files.facts.vocabulary or 50_000
    bytes_each = 4 if params.precision == "float32" else 2
    rank = params.rank if isinstance(params, AdapterParams) else 0
    learnt = count if method == "full" else min(count, 22 * rank * width * layers)
    weights = count * bytes_each
    if method == "packed":
        head = min(count, vocabulary * width)
        weights = int(head * bytes_each + (count - head) * NF4)
    tokens = params.batch * length
    activations = tokens * layers * width * 40 * bytes_each // 2 + min(tokens, 1024) * vocabulary * 12
    memory = PROCESS + int(models * weights) + learnt * ADAM + activations
    if method == "packed":
        memory = max(memory, PROCESS + count * bytes_each + weights)  # while it is packed, both are there
    disk = learnt * (12 * 2 + 4) + (count * 4 if method == "full" else 0)
    seconds = params.steps * params.accumulate * passes * forward_seconds(count, tokens)
    if method == "packed":  # the texts go through half of the blocks for each block, on the average
        seconds += layers / 2 * forward_seconds(count, LOOKED_AT)
    return Cost(memory=memory, disk=disk, seconds=seconds + 2e-8 * count)
