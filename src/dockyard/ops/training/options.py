"""The parameters that all training shares."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from dockyard.ops import Params

Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]


class TrainParams(Params, frozen=True):
    """How long, how fast and how carefully to learn."""

    steps: Annotated[Annotated[int, Meta(ge=1, le=10_000_000)], Meta(description="Updates of the weights.")] = 100
    batch: Annotated[Count, Meta(description="Examples that are computed together.")] = 4
    accumulate: Annotated[Count, Meta(description="Batches whose gradients make one update.")] = 1
    length: Annotated[
        Annotated[int, Meta(ge=8)] | None,
        Meta(description="Longest example, in tokens; 512 if not said, or the model's window where that is less."),
    ] = None
    learning_rate: Annotated[
        Annotated[float, Meta(gt=0)] | None, Meta(description="Step size; the method's own if not said.")
    ] = None
    schedule: Annotated[Literal["cosine", "linear", "constant"], Meta(description="How the step size goes down.")] = (
        "cosine"
    )
    warmup: Annotated[Share, Meta(description="Share of the steps in which it first rises.")] = 0.03
    weight_decay: Annotated[Annotated[float, Meta(ge=0)], Meta(description="Pull of weights towards zero.")] = 0.0
    clip: Annotated[Annotated[float, Meta(gt=0)], Meta(description="Longest gradient; longer ones are cut.")] = 1.0
    precision: Annotated[Literal["float32", "bfloat16"], Meta(description="Numbers that the base computes in.")] = (
        "float32"
    )
    seed: Annotated[Annotated[int, Meta(ge=0)], Meta(description="Order of examples, first weights, dropout.")] = 0
    evaluate_every: Annotated[
        Annotated[int, Meta(ge=0)], Meta(description="Steps between losses on held-out examples; 0: at the end.")
    ] = 0
    patience: Annotated[
        Annotated[int, Meta(ge=0)],
        Meta(description="Stop after so many evaluations without a better one, and keep the best; 0: never."),
    ] = 0
    threads: Annotated[
        Annotated[int, Meta(ge=0)],
        Meta(description="Threads to compute with; other numbers of them differ in the last digits. 0: all cores."),
    ] = 0
    checkpoint_every: Annotated[Count, Meta(description="Steps after which an interrupted run can go on.")] = 20


class AdapterParams(TrainParams, frozen=True):
    """The same, where what is learnt may be an adapter."""

    rank: Annotated[Count, Meta(description="Rank of the adapter's matrices.")] = 8
    alpha: Annotated[
        Annotated[float, Meta(gt=0)] | None, Meta(description="Weight of the adapter; twice the rank if not said.")
    ] = None
    dropout: Annotated[Share, Meta(description="Dropout inside the adapter.")] = 0.0
    target: Annotated[
        str, Meta(description="Modules that get one, with commas between; all-linear: every linear layer.")
    ] = "all-linear"
