"""Pre-training: a fresh transformer, from random weights."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Entry, Store
from dockyard.errors import InvalidRequest
from dockyard.ops import Inputs, Job, Takes
from dockyard.ops._checkpoint import open_tokenizer, save_checkpoint
from dockyard.ops._libraries import library
from dockyard.ops.dataset.records import text_of
from dockyard.ops.planning import Cost
from dockyard.ops.training import loop
from dockyard.ops.training.examples import Encoding, encode
from dockyard.ops.training.foresee import LENGTH, cost
from dockyard.ops.training.options import Count, TrainParams
from dockyard.ops.tune import figures, held_out_records, read_data, supervised, tell


class PretrainParams(TrainParams, frozen=True):
    """The shape of the transformer, and how to train it."""

    steps: Annotated[
        Annotated[int, Meta(ge=0, le=10_000_000)], Meta(description="Updates of the weights; 0: only make them.")
    ] = 100
    layers: Annotated[Count, Meta(description="Transformer blocks.")] = 4
    width: Annotated[Count, Meta(description="Numbers that stand for a token.")] = 256
    heads: Annotated[Count, Meta(description="Attention heads.")] = 4
    kv_heads: Annotated[Count | None, Meta(description="Heads of keys and values; as many as heads if not said.")] = (
        None
    )
    feed_forward: Annotated[Count | None, Meta(description="Width of the feed-forward; 8/3 of the width.")] = None
    window: Annotated[Annotated[int, Meta(ge=8)], Meta(description="Longest text it will read, in tokens.")] = 2048
    vocabulary: Annotated[
        Annotated[int, Meta(ge=300)] | None,
        Meta(description="Learn a tokenizer of this size from the data; else MODEL's own is used."),
    ] = None
    everything: Annotated[bool, Meta(description="Learn prompts too, not answers only.")] = True
    pack: Annotated[bool, Meta(description="Raw text: fill each example to its length, across records.")] = True


class Pretrain:
    """Train a fresh transformer of your own shape on raw text; MODEL lends its tokenizer and chat template."""

    name = "pretrain"
    version = "1"
    params = PretrainParams
    takes = (
        Takes(role="base", help="The model whose tokenizer is used.", required=True),
        Takes(role="data", kind="data", help="A data set, or a file of text.", required=True),
        Takes(role="evaluation", kind="data", help="Must not overlap with the data; may be repeated.", many=True),
    )

    def predict(self, store: Store, inputs: Inputs, params: PretrainParams) -> Cost:
        base = next(parent.digest for parent in inputs.artifacts if parent.role == "base")
        words = params.vocabulary or model_files(store, base).facts.vocabulary or 50_000
        forward = params.feed_forward or 8 * params.width // 3
        size = words * params.width + params.layers * (4 * params.width**2 + 3 * params.width * forward)
        return cost(store, base, msgspec.structs.replace(params, length=_length(params)), "full", size=size)

    def run(self, job: Job, params: PretrainParams) -> Entry:
        if params.width % params.heads or params.heads % (params.kv_heads or params.heads):
            raise InvalidRequest(
                f"{params.heads} heads do not divide a width of {params.width}, or are not divided by their kv-heads",
                param="heads",
            )
        data = read_data(job)
        words = open_tokenizer(model_files(job.store, job.artifact("base")))
        if params.vocabulary is not None:
            with loop.quiet_libraries():
                words = words.train_new_from_iterator(
                    map(text_of, data.part("train")), params.vocabulary, show_progress=False
                )
        how = Encoding(length=_length(params), everything=params.everything, pack=params.pack)
        learnt = encode(words, data.card.kind, data.part("train"), how)
        held = held_out_records(data, params)
        held_out = encode(words, data.card.kind, held, how) if held else None
        tell(job, learnt)
        library("transformers").set_seed(params.seed)
        model = library("transformers").LlamaForCausalLM(_configuration(words, params))
        if params.steps == 0:
            return save_checkpoint(job, model, words, dtype="float32")
        with loop.quiet_libraries():
            trainer = supervised(job, model, words, params, learnt, held_out, 1e-3)
        outcome = loop.run(job, trainer, params, "pretrain")
        with loop.on_threads(job, params):
            facts = {"shape": _shape(params), **figures(model, learnt, held_out)}
        extra = loop.records_of(job, outcome, "pre-training", facts)
        return save_checkpoint(job, model, words, dtype="float32", extra=extra)


PLUGIN = Pretrain()


def _length(params: PretrainParams) -> int:
    """Tokens of the longest example; a window is made wider for longer ones that are asked for."""
    return params.length if params.length is not None else min(LENGTH, params.window)


def _configuration(words: Any, params: PretrainParams) -> Any:
    return library("transformers").LlamaConfig(
        vocab_size=len(words),
        hidden_size=params.width,
        intermediate_size=params.feed_forward or 8 * params.width // 3,
        num_hidden_layers=params.layers,
        num_attention_heads=params.heads,
        num_key_value_heads=params.kv_heads or params.heads,
        max_position_embeddings=max(params.window, _length(params)),
        tie_word_embeddings=True,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )


def _shape(params: PretrainParams) -> dict[str, Any]:
    names = ("layers", "width", "heads", "kv_heads", "feed_forward", "window", "vocabulary")
    return {name: value for name, value in msgspec.to_builtins(params).items() if name in names}
