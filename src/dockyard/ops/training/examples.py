"""Records become tokens with labels: which tokens a model is to learn, by the template that it is served with.

The loss counts on answers only. Which tokens are an answer is found by rendering the conversation up to it, with the
words that ask for an answer, and all of it: what the second text has more is the answer. That needs no markers in the
template; where the first is not the beginning of the second, the template hides earlier turns, and that turn is passed
over. A template in which no answer can be found this way is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.ops.dataset.records import Kind, Record

IGNORED = -100
"""Label of a token that the loss leaves out."""


class Encoding(msgspec.Struct, frozen=True, kw_only=True):
    """How records are turned into tokens.

    ``length``: the most tokens of an example. ``everything``: learn prompts too. ``pack``: texts one after another,
    cut into examples of that length. ``chat``: prompt and completion are turns; None: if the model has a template.
    """

    length: int
    everything: bool = False
    pack: bool = False
    chat: bool | None = None


class Encoded(msgspec.Struct, frozen=True, kw_only=True):
    """Examples as ``input_ids`` and ``labels``. ``cut`` counts records longer than the window, ``unusable`` those whose
    answers all lie behind it."""

    examples: list[dict[str, list[int]]]
    cut: int = 0
    unusable: int = 0

    @property
    def tokens(self) -> int:
        return sum(len(example["input_ids"]) for example in self.examples)


def encode(tokenizer: Any, kind: Kind, records: Sequence[Record], how: Encoding) -> Encoded:
    """Tokens and labels of records. Raises InvalidRequest where the kind or the template can't be learnt from."""
    if kind == "text":
        return _texts(tokenizer, [record["text"] for record in records], how)
    if kind not in ("messages", "completion"):
        raise InvalidRequest(
            f"{kind} records have no answer to imitate", param="data", hint="`dockyard align` learns from preferences"
        )
    cut = unusable = 0
    examples = []
    for record in records:
        ids, learn = spans(tokenizer, record, how)
        cut += len(ids) > how.length
        labels = [token if wanted else IGNORED for token, wanted in zip(ids, learn, strict=True)]
        if all(label == IGNORED for label in labels[1 : how.length]):
            unusable += 1
            continue
        examples.append({"input_ids": ids[: how.length], "labels": labels[: how.length]})
    if not examples:
        raise InvalidRequest(
            f"no answer begins within {how.length} tokens in any of {len(records)} records",
            param="length",
            hint="allow longer examples",
        )
    return Encoded(examples=examples, cut=cut, unusable=unusable)


def spans(tokenizer: Any, record: Record, how: Encoding) -> tuple[list[int], list[bool]]:
    """The tokens of one conversation or pair, and for each whether it is to be learnt."""
    turns = conversation(tokenizer, record, how)
    if turns is None:
        text, places = _plain(record)
    else:
        text, places = rendered(tokenizer, turns, record.get("tools"))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
    if how.everything:
        learn = [True] * len(ids)
    else:
        learn = [any(low <= start < high for low, high in places) and start < end for start, end in offsets]
    if turns is None and tokenizer.eos_token_id is not None:
        ids, learn = [*ids, tokenizer.eos_token_id], [*learn, True]
    return ids, learn


def conversation(tokenizer: Any, record: Record, how: Encoding) -> list[dict[str, Any]] | None:
    """A record's turns, if it is to go through the chat template; None for text as it is.

    Raises InvalidRequest for turns when the model has no template.
    """
    if "messages" in record:
        turns = list(record["messages"])
    elif isinstance(record["prompt"], list):
        answer = record["completion"]
        turns = [*record["prompt"], *(answer if isinstance(answer, list) else [_turn("assistant", answer)])]
    elif how.chat is False or (how.chat is None and not tokenizer.chat_template):
        return None
    else:
        turns = [_turn("user", record["prompt"]), _turn("assistant", record["completion"])]
    if not tokenizer.chat_template:
        raise InvalidRequest(
            "the data are conversations, and the model has no chat template",
            param="data",
            hint="package the model with one (`--chat-template FILE`), or give prompt and completion as text",
        )
    return turns


def rendered(tokenizer: Any, turns: list[dict[str, Any]], tools: Any = None) -> tuple[str, list[tuple[int, int]]]:
    """A conversation as the template writes it, and where in it the assistant's answers are.

    Raises InvalidRequest for a template that fails or in which no answer is found.
    """
    from jinja2 import TemplateError

    known: dict[str, Any] = {"tools": tools if isinstance(tools, list) else json.loads(tools) if tools else None}
    places = []
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, **known)
        for at, turn in enumerate(turns):
            if turn.get("role") != "assistant":
                continue
            before = tokenizer.apply_chat_template(turns[:at], tokenize=False, add_generation_prompt=True, **known)
            through = tokenizer.apply_chat_template(turns[: at + 1], tokenize=False, **known)
            if text.startswith(through) and through.startswith(before) and len(through) > len(before):
                places.append((len(before), len(through)))
    except TemplateError as error:
        raise InvalidRequest(f"the model's chat template refuses a conversation: {error}", param="data") from error
    if not places:
        raise InvalidRequest(
            "the model's chat template has no assistant turn that can be told from the rest",
            param="data",
            hint="package the model with one that writes them; prompt and completion as text need none: --no-chat",
        )
    return text, places


def _turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def _plain(record: Record) -> tuple[str, list[tuple[int, int]]]:
    prompt, completion = str(record["prompt"]), str(record["completion"])
    return prompt + completion, [(len(prompt), len(prompt) + len(completion))]


def _texts(tokenizer: Any, texts: Sequence[str], how: Encoding) -> Encoded:
    """Texts as they are, each ended; long ones continue in the next example, so that nothing is lost."""
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    all_ids = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) + end for text in texts]
    if how.pack:
        all_ids = [[token for ids in all_ids for token in ids]]
    pieces = [ids[at : at + how.length] for ids in all_ids for at in range(0, len(ids), how.length)]
    pieces = [piece for piece in pieces if len(piece) > 1]
    if not pieces:
        raise InvalidRequest("the texts have no two tokens to learn from", param="data")
    return Encoded(examples=[{"input_ids": piece, "labels": list(piece)} for piece in pieces])
