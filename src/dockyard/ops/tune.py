"""Fine-tuning: a model learns from examples, as an adapter or with all its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta

from dockyard.artifact.store import Entry, Store
from dockyard.errors import Conflict, InvalidRequest
from dockyard.ops import Inputs, Job, Takes, refuse_unused
from dockyard.ops._checkpoint import Checkpoint, open_checkpoint, save_checkpoint, save_files
from dockyard.ops.dataset import overlap
from dockyard.ops.dataset.artifact import DataSet, items_of, open_dataset
from dockyard.ops.dataset.records import Record, text_of
from dockyard.ops.planning import Cost
from dockyard.ops.training import loop, sft
from dockyard.ops.training.adapters import Kind, lora_config, weight_bytes, write_adapter
from dockyard.ops.training.examples import Encoded, Encoding, encode
from dockyard.ops.training.foresee import cost, length_of
from dockyard.ops.training.nf4 import texts_to_look_at, to_four_bits
from dockyard.ops.training.options import AdapterParams, TrainParams

ADAPTERS_OWN = ("rank", "alpha", "dropout", "target")
"""Parameters that only adapters have."""
RATES = {"full": 2e-5, "lora": 2e-4, "rslora": 2e-4, "dora": 2e-4, "qlora": 2e-4}
"""Step sizes that papers and libraries use for each method."""


class TuneParams(AdapterParams, frozen=True):
    """How to tune."""

    method: Annotated[
        Literal["lora", "rslora", "dora", "qlora", "full"],
        Meta(description="An adapter (lora and its kin; qlora over a base in 4 bits), or all weights."),
    ] = "lora"
    chat: Annotated[
        bool | None,
        Meta(description="Prompt and completion are turns of the chat template; as is if the model has one."),
    ] = None
    everything: Annotated[bool, Meta(description="Learn prompts too, not answers only.")] = False
    pack: Annotated[bool, Meta(description="Raw text: fill each example to its length, across records.")] = True


class Tune:
    """Teach MODEL by examples: instructions, chats or raw text, as an adapter or all its weights."""

    name = "tune"
    version = "1"
    params = TuneParams
    takes = (
        Takes(role="base", help="The model to start from.", required=True),
        Takes(role="data", kind="data", help="A data set, or a file of examples.", required=True),
        Takes(role="evaluation", kind="data", help="Must not overlap with the data; may be repeated.", many=True),
    )

    def predict(self, store: Store, inputs: Inputs, params: TuneParams) -> Cost:
        base = next(parent.digest for parent in inputs.artifacts if parent.role == "base")
        method: Any = {"full": "full", "qlora": "packed"}.get(params.method, "adapter")
        return cost(store, base, params, method)

    def run(self, job: Job, params: TuneParams) -> Entry:
        if params.method == "full":
            refuse_unused(params, ADAPTERS_OWN, "tunes all weights, not an adapter")
        length = length_of(job.store, params, job.artifact("base"))
        data = read_data(job)
        held = held_out_records(data, params)
        start = open_checkpoint(job.store, job.artifact("base"), dtype=params.precision)
        how = Encoding(length=length, everything=params.everything, pack=params.pack, chat=params.chat)
        learnt = encode(start.tokenizer, data.card.kind, data.part("train"), how)
        held_out = encode(start.tokenizer, data.card.kind, held, how) if held else None
        tell(job, learnt)
        with loop.quiet_libraries():
            with loop.on_threads(job, params):
                model = prepare(start.model, params, learnt.examples)
            trainer = supervised(job, model, start.tokenizer, params, learnt, held_out, RATES[params.method])
        title = f"{params.method} of {start.files.reference}"
        outcome = loop.run(job, trainer, params, "tune")
        with loop.on_threads(job, params):
            facts = {"method": params.method, **figures(model, learnt, held_out)}
        extra = loop.records_of(job, outcome, title, facts)
        if params.method == "full":
            dtype: Any = "bfloat16" if params.precision == "bfloat16" else "float16"
            return save_checkpoint(job, model, start.tokenizer, dtype=dtype, extra=extra)
        files = write_adapter(model, job.work / "adapter", base_name(start))
        return save_files(job, {**files, **extra})


PLUGIN = Tune()


def read_data(job: Job) -> DataSet:
    """The job's data set. Raises Conflict where it overlaps with an evaluation."""
    data = open_dataset(job.store, job.artifact("data"))
    for digest in job.artifacts("evaluation"):
        records = [record for part in data.parts.values() for record in part]
        hits = overlap.overlap([text_of(record) for record in records], items_of(job.store, digest))
        if hits:
            raise Conflict(
                f"{len(hits)} of {len(records)} records of the data are in the evaluation too; "
                f"the first is record {hits[0][0] + 1}, which is its item {hits[0][1] + 1}",
                param="data",
                hint="`dockyard data create … --against EVALUATION --overlapping drop` leaves them out",
            )
    return data


def held_out_records(data: DataSet, params: TrainParams) -> list[Record] | None:
    """The validation part of a data set. Raises InvalidRequest where it has none and the parameters need one."""
    held = data.parts.get("validation")
    if held is None and (params.patience or params.evaluate_every):
        raise InvalidRequest(
            "there are no held-out examples to evaluate on while training",
            param="patience" if params.patience else "evaluate_every",
            hint="`dockyard data create DATA NAME --validation 0.1` holds some out",
        )
    return held


def prepare(model: Any, params: TuneParams, examples: Sequence[Mapping[str, list[int]]] = ()) -> Any:
    """The model with what the method learns: an adapter over a base that stays, or everything. A base in four bits is
    rounded by what it sees on the examples."""
    if params.method == "full":
        return model
    return with_adapter(model, params.method, params, examples=examples)


def with_adapter(
    model: Any,
    kind: Kind,
    params: AdapterParams,
    task: str = "CAUSAL_LM",
    examples: Sequence[Mapping[str, list[int]]] = (),
) -> Any:
    """A PEFT model; its first matrices are drawn by the seed. ``examples`` are those that ``qlora`` will learn from."""
    from dockyard.ops._libraries import library

    config = lora_config(model, kind, params, task)
    if kind == "qlora":
        to_four_bits(model, params.precision, texts_to_look_at(examples, params.seed))
    library("transformers").set_seed(params.seed)
    return library("peft").get_peft_model(model, config)


def supervised(
    job: Job,
    model: Any,
    tokenizer: Any,
    params: Any,
    learnt: Encoded,
    held_out: Encoded | None,
    rate: float,
    kind: Any = None,
) -> Any:
    """A trainer for next tokens; ``kind`` is another class derived from ours."""
    from dockyard.ops._libraries import library

    trl = library("trl")
    settings = loop.arguments(
        trl.SFTConfig, job, params, rate=rate, held_out=held_out is not None, max_length=None, shuffle_dataset=False
    )
    model.train()
    return (kind or sft.trainer_class())(
        model=model,
        args=settings,
        train_dataset=loop.dataset(learnt.examples),
        eval_dataset=loop.dataset(held_out.examples) if held_out is not None else None,
        processing_class=loop.with_padding(tokenizer),
    )


def tell(job: Job, learnt: Encoded) -> None:
    """Say what there is to learn from, and what was cut."""
    job.note(f"{len(learnt.examples)} examples, {learnt.tokens} tokens")
    if learnt.cut or learnt.unusable:
        job.note(f"{learnt.cut} are longer than the window and were cut; {learnt.unusable} have no answer in it")


def figures(model: Any, learnt: Encoded, held_out: Encoded | None) -> dict[str, Any]:
    """What is kept of a run beside its losses. The held-out loss is in nats a token, over all of them."""
    weights = list(model.parameters())
    found: dict[str, Any] = {
        "examples": len(learnt.examples),
        "tokens": learnt.tokens,
        "weights": sum(_count(weight) for weight in weights),
        "learnt_weights": sum(_count(weight) for weight in weights if weight.requires_grad),
        "weight_bytes": weight_bytes(model),
    }
    if held_out is not None and sft.plain_head(model):
        found["held_out_loss"] = float(f"{sft.mean_loss(sft.losses(model, held_out.examples)):.6g}")
    return found


def _count(weight: Any) -> int:
    """Weights in a parameter; in NF4 two lie in a byte."""
    return int(weight.numel() * (2 if getattr(weight, "quant_state", None) is not None else 1))


def base_name(start: Checkpoint) -> str:
    """What an adapter says it was made for: the base's name for itself, or its digest."""
    return start.files.facts.name or start.files.digest
