"""Trainers that learn from preferences: TRL's, made from our parameters and records."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dockyard.artifact.materialize import model_files
from dockyard.errors import InvalidRequest, UnsupportedFormat
from dockyard.ops import Job
from dockyard.ops._checkpoint import Checkpoint
from dockyard.ops._libraries import library
from dockyard.ops.dataset.records import Kind, Record
from dockyard.ops.training import loop
from dockyard.ops.training.foresee import length_of
from dockyard.ops.training.rewards import from_file, named

if TYPE_CHECKING:
    from dockyard.ops.align import AlignParams

WANTED: dict[str, tuple[Kind, ...]] = {
    "dpo": ("preference",),
    "reward": ("preference",),
    "kto": ("unpaired", "preference"),
    "rloo": ("prompts", "completion"),
    "grpo": ("prompts", "completion"),
}
"""The kinds of records that each method learns from."""
RATES = {"dpo": 5e-5, "kto": 5e-5, "reward": 1e-4, "rloo": 5e-5, "grpo": 5e-5}


def shaped(method: str, kind: Kind, records: Sequence[Record], tokenizer: Any) -> list[Record]:
    """Records as the method's trainer takes them; texts become turns where the model has a chat template.

    Raises InvalidRequest for records that the method can't learn from.
    """
    if kind not in WANTED[method]:
        raise InvalidRequest(
            f"{method} learns from {' or '.join(WANTED[method])} records, and these are {kind}", param="data"
        )
    chat = bool(tokenizer.chat_template)
    if method == "kto" and kind == "preference":  # each side of a pair is an example by itself
        records = [
            {"prompt": record["prompt"], "completion": record[side], "label": side == "chosen"}
            for record in records
            for side in ("chosen", "rejected")
        ]
    found = []
    for record in records:
        changed = dict(record)
        if kind == "completion" and method in ("rloo", "grpo"):
            changed["answer"] = changed.pop("completion")
        for name in ("prompt", "completion", "chosen", "rejected"):
            if isinstance(changed.get(name), str) and chat:
                changed[name] = [{"role": "user" if name == "prompt" else "assistant", "content": changed[name]}]
        found.append(changed)
    return found


def trainer(
    job: Job,
    model: Any,
    start: Checkpoint,
    params: AlignParams,
    records: list[Record],
    held_out: list[Record] | None,
) -> Any:
    """The method's trainer, ready to run."""
    trl = library("trl")
    words = loop.with_padding(start.tokenizer)
    length = length_of(job.store, params, job.artifact("base"))
    shared: dict[str, Any] = {
        "model": model,
        "processing_class": words,
        "train_dataset": loop.dataset(records),
        "eval_dataset": loop.dataset(held_out) if held_out else None,
    }

    def arguments(kind: Any, **more: Any) -> Any:
        return loop.arguments(
            kind, job, params, rate=RATES[params.method], held_out=bool(held_out), disable_dropout=True, **more
        )

    if params.method == "reward":
        return trl.RewardTrainer(args=arguments(trl.RewardConfig, max_length=length), **shared)
    if params.method in ("dpo", "kto"):
        config, kind = (trl.DPOConfig, trl.DPOTrainer) if params.method == "dpo" else (trl.KTOConfig, trl.KTOTrainer)
        reference = copy.deepcopy(model) if params.learn == "full" else None  # an adapter's reference is its base
        return kind(ref_model=reference, args=arguments(config, beta=params.beta, max_length=length), **shared)
    if (params.batch * params.accumulate) % params.answers:
        raise InvalidRequest(
            f"{params.answers} answers a prompt do not divide {params.batch * params.accumulate} answers a step",
            param="answers",
            hint="batch times accumulate must be a multiple of answers",
        )
    generating: dict[str, Any] = {
        "num_generations": params.answers,
        "max_completion_length": params.answer,
        "temperature": params.temperature,
        "beta": params.beta,
    }
    config, kind = (trl.RLOOConfig, trl.RLOOTrainer) if params.method == "rloo" else (trl.GRPOConfig, trl.GRPOTrainer)
    rewards, judges = reward_functions(job, params)
    return kind(
        reward_funcs=rewards,
        reward_processing_classes=judges,
        args=arguments(config, **generating),
        **shared,
    )


def reward_functions(job: Job, params: AlignParams) -> tuple[list[Any], list[Any]]:
    """What answers are rewarded by: named functions, those of a file, a reward model; and the tokenizer of each."""
    found: list[Any] = [named(text) for text in params.rewards if text]
    code = job.file("code")
    if code is not None:
        found += from_file(code)
    tokenizers: list[Any] = [None] * len(found)
    for digest in job.artifacts("reward"):
        model, words = open_reward(job, digest)
        found.append(model)
        tokenizers.append(words)
    if not found:
        raise InvalidRequest(
            f"{params.method} needs to know what is good",
            param="rewards",
            hint="--rewards answer, --code FILE.py, or --reward MODEL",
        )
    return found, tokenizers


def open_reward(job: Job, digest: str) -> tuple[Any, Any]:
    """A reward model that ``align --method reward`` made, and its tokenizer."""
    from dockyard.ops._checkpoint import open_tokenizer

    transformers = library("transformers")
    files = model_files(job.store, digest)
    config = transformers.AutoConfig.from_pretrained(files.directory, local_files_only=True)
    if not any("SequenceClassification" in name for name in config.architectures or ()):
        raise UnsupportedFormat(
            f"{files.reference} is no reward model", hint="`dockyard align BASE NAME --method reward` makes one"
        )
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        files.directory, local_files_only=True, dtype=library("torch").float32
    )
    return model.eval(), loop.with_padding(open_tokenizer(files))


def with_score(model: Any, tokenizer: Any, seed: int) -> Any:
    """A causal model as one that gives a text one number: its head replaced by a score, at first of small weights."""
    transformers = library("transformers")
    config = copy.deepcopy(model.config)
    config.num_labels = 1
    config.pad_token_id = loop.with_padding(tokenizer).pad_token_id
    transformers.set_seed(seed)
    found = transformers.AutoModelForSequenceClassification.from_config(config, dtype=model.dtype)
    found.base_model.load_state_dict(model.base_model.state_dict())
    return found
