"""Distillation: a smaller model learns what a larger one would say, token by token."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dockyard.artifact.store import Entry, Store
from dockyard.errors import InvalidRequest
from dockyard.ops import Inputs, Job, Takes, refuse_unused
from dockyard.ops._checkpoint import Checkpoint, open_checkpoint, save_checkpoint, save_files
from dockyard.ops.planning import Cost
from dockyard.ops.training import loop
from dockyard.ops.training.adapters import write_adapter
from dockyard.ops.training.divergence import Mixture, distiller_class
from dockyard.ops.training.examples import Encoding, encode
from dockyard.ops.training.foresee import cost, length_of
from dockyard.ops.training.options import AdapterParams, Share
from dockyard.ops.tune import (
    ADAPTERS_OWN,
    base_name,
    figures,
    held_out_records,
    read_data,
    supervised,
    tell,
    with_adapter,
)


class DistillParams(AdapterParams, frozen=True):
    """How to distil."""

    method: Annotated[
        Literal["logits", "on-policy"],
        Meta(description="On the data's answers, or on answers that the student writes itself."),
    ] = "logits"
    learn: Annotated[Literal["full", "lora"], Meta(description="What of the student: all weights, or an adapter.")] = (
        "full"
    )
    share: Annotated[
        Share, Meta(description="Share of the teacher's distribution in the loss; the rest is the data's own words.")
    ] = 0.9
    temperature: Annotated[
        Annotated[float, Meta(gt=0)], Meta(description="Softens both distributions, so that unlikely words count.")
    ] = 1.0
    answer: Annotated[
        Annotated[int, Meta(ge=1)], Meta(description="On-policy: the most tokens of a student's own answer.")
    ] = 64
    chat: Annotated[
        bool | None,
        Meta(description="Prompt and completion are turns of the chat template; as is if the model has one."),
    ] = None
    everything: Annotated[bool, Meta(description="Learn prompts too, not answers only.")] = False
    pack: Annotated[bool, Meta(description="Raw text: fill each example to its length, across records.")] = True


class Distill:
    """Teach a small MODEL what a larger one says: by its distributions, on data or on the student's own answers.

    Both must have one tokenizer. The student may be the teacher itself after `prune`, or a fresh one of `pretrain
    --steps 0`. For a teacher that is far away or has another tokenizer, `synthesize --method answers` asks it for
    answers, and `tune` learns those.
    """

    name = "distill"
    version = "1"
    params = DistillParams
    takes = (
        Takes(role="base", help="The student.", required=True),
        Takes(role="teacher", help="The model to learn from.", required=True),
        Takes(role="data", kind="data", help="A data set, or a file of examples.", required=True),
        Takes(role="evaluation", kind="data", help="Must not overlap with the data; may be repeated.", many=True),
    )

    def predict(self, store: Store, inputs: Inputs, params: DistillParams) -> Cost:
        by_role = {parent.role: parent.digest for parent in inputs.artifacts}
        length = length_of(store, params, by_role["base"], by_role["teacher"])
        params = msgspec.structs.replace(params, length=length)
        method: Literal["adapter", "full"] = "full" if params.learn == "full" else "adapter"
        mine = cost(store, by_role["base"], params, method)
        beside = cost(store, by_role["teacher"], params, "adapter", passes=1.0)
        weights = beside.memory - cost(store, by_role["teacher"], params, "adapter", models=0).memory
        slower = 3.0 if params.method == "on-policy" else 1.0
        return Cost(
            memory=mine.memory + weights,
            disk=mine.disk,
            seconds=mine.seconds * slower + beside.seconds,
        )

    def run(self, job: Job, params: DistillParams) -> Entry:
        if params.learn == "full":
            refuse_unused(params, ADAPTERS_OWN, "trains all weights, not an adapter")
        if params.method == "on-policy":
            refuse_unused(params, ("share",), "learns from the teacher alone")
        length = length_of(job.store, params, job.artifact("base"), job.artifact("teacher"))
        data = read_data(job)
        held = held_out_records(data, params)
        student = open_checkpoint(job.store, job.artifact("base"), dtype=params.precision)
        teacher = open_checkpoint(job.store, job.artifact("teacher"), dtype=params.precision)
        _same_words(student, teacher)
        how = Encoding(length=length, everything=params.everything, pack=params.pack, chat=params.chat)
        if params.method == "on-policy" and (data.card.kind == "text" or params.everything):
            raise InvalidRequest(
                "on-policy distillation needs prompts to answer", param="method", hint="give messages or completions"
            )
        learnt = encode(student.tokenizer, data.card.kind, data.part("train"), how)
        held_out = encode(student.tokenizer, data.card.kind, held, how) if held else None
        tell(job, learnt)
        model = student.model
        if params.learn == "lora":
            model = with_adapter(model, "lora", params)
        answer = params.answer if params.method == "on-policy" else 0
        mixture = Mixture(share=params.share, temperature=params.temperature, answer=answer)
        words = loop.with_padding(student.tokenizer)
        kind = distiller_class(teacher.model, mixture, words.pad_token_id, words.eos_token_id)
        rate = 5e-5 if params.learn == "full" else 2e-4
        with loop.quiet_libraries():
            trainer = supervised(job, model, student.tokenizer, params, learnt, held_out, rate, kind)
        outcome = loop.run(job, trainer, params, "distill")
        facts: dict[str, Any] = {"method": params.method, "mixture": msgspec.to_builtins(mixture)}
        with loop.on_threads(job, params):
            facts |= figures(model, learnt, held_out)
        title = f"{student.files.reference} from {teacher.files.reference}"
        extra = loop.records_of(job, outcome, title, facts)
        if params.learn == "lora":
            return save_files(job, {**write_adapter(model, job.work / "adapter", base_name(student)), **extra})
        dtype: Any = "bfloat16" if params.precision == "bfloat16" else "float16"
        return save_checkpoint(job, model, student.tokenizer, dtype=dtype, extra=extra)


PLUGIN = Distill()


def _same_words(student: Checkpoint, teacher: Checkpoint) -> None:
    """Raises InvalidRequest where one token means different words to the two."""
    if student.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
        raise InvalidRequest(
            f"{student.files.reference} and {teacher.files.reference} have different tokenizers, so that their "
            "distributions can't be compared",
            param="teacher",
            hint="`dockyard synthesize --method answers` writes down what the teacher says, and `tune` learns that",
        )
