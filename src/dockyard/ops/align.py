"""Preference tuning: a model learns which answers people, or a rule, like better."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from dockyard.artifact.store import Entry, Store
from dockyard.errors import InvalidRequest
from dockyard.ops import Inputs, Job, Takes, refuse_unused
from dockyard.ops._checkpoint import open_checkpoint, save_checkpoint, save_files
from dockyard.ops.planning import Cost
from dockyard.ops.training import loop, preferences
from dockyard.ops.training.adapters import write_adapter
from dockyard.ops.training.foresee import cost, length_of
from dockyard.ops.training.options import AdapterParams, Count
from dockyard.ops.tune import ADAPTERS_OWN, base_name, held_out_records, read_data, with_adapter


class AlignParams(AdapterParams, frozen=True):
    """How to align."""

    method: Annotated[
        Literal["dpo", "kto", "reward", "rloo", "grpo"],
        Meta(description="From pairs (dpo), single judgements (kto), into a reward model, or by rewards (rloo, grpo)."),
    ] = "dpo"
    learn: Annotated[Literal["lora", "full"], Meta(description="An adapter, or all weights.")] = "lora"
    beta: Annotated[
        Annotated[float, Meta(ge=0)], Meta(description="How strongly the model is held near to what it was.")
    ] = 0.1
    answers: Annotated[
        Annotated[int, Meta(ge=2)], Meta(description="rloo, grpo: answers to each prompt that are compared.")
    ] = 4
    answer: Annotated[Count, Meta(description="rloo, grpo: the most tokens of an answer.")] = 64
    temperature: Annotated[Annotated[float, Meta(gt=0)], Meta(description="rloo, grpo: how freely they are drawn.")] = (
        1.0
    )
    rewards: Annotated[
        tuple[str, ...],
        Meta(description="rloo, grpo: answer, json, length:N or regex:EXPRESSION; commas between several."),
    ] = ()


class Align:
    """Teach MODEL which answers are better: from votes of an arena or a file of pairs, or by rewards (RLHF).

    Data for dpo and reward are prompt, chosen and rejected; for kto also prompt, completion and label; for rloo and
    grpo prompts, with whatever else the rewards look at. The reward may be a model that `--method reward` made.
    """

    name = "align"
    version = "1"
    params = AlignParams
    takes = (
        Takes(role="base", help="The model to start from.", required=True),
        Takes(role="data", kind="data", help="A data set, or a file of preferences or prompts.", required=True),
        Takes(role="reward", help="A reward model, for rloo and grpo."),
        Takes(role="code", kind="file", help="A Python file with functions reward_…, for rloo and grpo."),
        Takes(role="evaluation", kind="data", help="Must not overlap with the data; may be repeated.", many=True),
    )

    def predict(self, store: Store, inputs: Inputs, params: AlignParams) -> Cost:
        base = next(parent.digest for parent in inputs.artifacts if parent.role == "base")
        full = params.learn == "full"
        passes = {"dpo": 8.0, "kto": 8.0, "reward": 6.0}.get(params.method, 5.0 + params.answer / 4)
        return cost(store, base, params, "full" if full else "adapter", models=2.0 if full else 1.0, passes=passes)

    def run(self, job: Job, params: AlignParams) -> Entry:
        if params.learn == "full" and params.method in ("rloo", "grpo") and params.beta > 0:
            raise InvalidRequest(
                f"{params.method} on all weights would need the model a second time to be held near to",
                param="learn",
                hint="--learn lora, or --beta 0",
            )
        if params.learn == "full":
            refuse_unused(params, ADAPTERS_OWN, "trains all weights, not an adapter")
        if params.method not in ("rloo", "grpo"):
            refuse_unused(params, ("answers", "answer", "temperature", "rewards"), "draws no answers")
            for role, given in (("reward", job.artifacts("reward")), ("code", job.file("code"))):
                if given:
                    raise InvalidRequest(f"{params.method} asks no rewards", param=role, hint=f"leave {role} out")
        length_of(job.store, params, job.artifact("base"))  # refused before anything is opened
        data = read_data(job)
        kind, held = data.card.kind, held_out_records(data, params)
        start = open_checkpoint(job.store, job.artifact("base"), dtype=params.precision)
        records = preferences.shaped(params.method, kind, data.part("train"), start.tokenizer)
        held_out = preferences.shaped(params.method, kind, held, start.tokenizer) if held else None
        job.note(f"{len(records)} records")
        model, task = start.model, "CAUSAL_LM"
        if params.method == "reward":
            model, task = preferences.with_score(model, start.tokenizer, params.seed), "SEQ_CLS"
        if params.learn == "lora":
            model = with_adapter(model, "lora", params, task)
        with loop.quiet_libraries():
            trainer = preferences.trainer(job, model.train(), start, params, records, held_out)
        outcome = loop.run(job, trainer, params, params.method)
        facts: dict[str, Any] = {"method": params.method, "records": len(records)}
        extra = loop.records_of(job, outcome, f"{params.method} of {start.files.reference}", facts)
        if params.method == "reward":
            whole = model.merge_and_unload() if params.learn == "lora" else model
            return save_checkpoint(job, whole, start.tokenizer, dtype="float32", extra=extra)
        if params.learn == "full":
            return save_checkpoint(job, model, start.tokenizer, extra=extra)
        return save_files(job, {**write_adapter(model, job.work / "adapter", base_name(start)), **extra})


PLUGIN = Align()
