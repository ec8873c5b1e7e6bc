"""Texts to token ids and back with the model's own tokenizer.json, and what happens to a text that is too long."""

from __future__ import annotations

import os
from typing import Any, Literal

from dockyard.engines._encoder_batch import Item
from dockyard.errors import ContextOverflow, InvalidRequest, LoadFailed

Side = Literal["none", "start", "end"]
"""Which end of a text that is too long is dropped; "none" refuses it."""


class Tokens:
    """Thread-safe. ``window`` counts the special tokens too."""

    def __init__(self, path: str, window: int) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the lanes have the cores
        from tokenizers import Tokenizer

        try:
            self._tokenizer: Any = Tokenizer.from_file(path)
        except Exception as error:
            raise LoadFailed(f"{path} is not a tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._window = window
        self._vocabulary = self._tokenizer.get_vocab_size(with_added_tokens=True)

    def ids(self, text: str | list[int], special: bool = True) -> list[int]:
        """Token ids come back as they are, once they are known to exist."""
        if isinstance(text, str):
            return list(self._tokenizer.encode(text, add_special_tokens=special).ids)
        for token in text:
            if not 0 <= token < self._vocabulary:
                raise InvalidRequest(f"{token} is not a token id: this model has {self._vocabulary}", param="input")
        return text

    def text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(self.ids(ids), skip_special_tokens=False))

    def clipped(self, text: str, most: int) -> tuple[str, int]:
        """The part of a text that its first ``most`` tokens stand for, and how many it lost."""
        lost = len(self.ids(text, special=False)) - most
        return (self._cut(text, most, "end"), lost) if lost > 0 else (text, 0)

    def single(self, text: str | list[int], side: Side, number: int) -> tuple[Item, int]:
        """The ``number``-th input, and how many of its tokens were dropped. Raises ContextOverflow."""
        if isinstance(text, list):
            ids = self.ids(text)
            if len(ids) > self._window and side == "none":
                raise self._overflow(f"input {number}", len(ids))
            kept = ids[-self._window :] if side == "start" else ids[: self._window]
            return Item(kept, [0] * len(kept)), len(ids) - len(kept)
        found = self._tokenizer.encode(text)
        length = len(found.ids)
        if length > self._window:
            if side == "none":
                raise self._overflow(f"input {number}", length)
            found.truncate(self._window)
            cut = length - len(found.ids)
            return self._shortened(text, cut, side), cut
        return Item(list(found.ids), list(found.type_ids)), 0

    def pair(self, query: str, document: str, side: Side, number: int) -> tuple[Item, int]:
        """Query and document in one sequence; only the document is ever cut."""
        found = self._tokenizer.encode(query, document)
        length = len(found.ids)
        if length <= self._window:
            return Item(list(found.ids), list(found.type_ids)), 0
        if side == "none":
            raise self._overflow(f"the query with document {number}", length)
        room = self._window - (length - len(self.ids(document, special=False)))
        if room <= 0:
            raise ContextOverflow(
                f"the query alone fills this model's window of {self._window} tokens",
                param="query",
                hint="shorten the query",
            )
        found = self._tokenizer.encode(query, self._cut(document, room, side))
        ids, types = list(found.ids)[: self._window], list(found.type_ids)[: self._window]
        return Item(ids, types), length - len(ids)

    def _shortened(self, text: str, cut: int, side: Side) -> Item:
        """The text without about ``cut`` tokens, framed by the special tokens as a short text would be."""
        whole = self.ids(text, special=False)
        found = self._tokenizer.encode(self._cut(text, len(whole) - cut, side))
        return Item(list(found.ids)[: self._window], list(found.type_ids)[: self._window])

    def _cut(self, text: str, keep: int, side: Side) -> str:
        """The part of a text that its first or last ``keep`` tokens stand for."""
        found = self._tokenizer.encode(text, add_special_tokens=False)
        if side == "start":
            return text[found.offsets[len(found.ids) - keep][0] :]
        return text[: found.offsets[keep - 1][1]]

    def _overflow(self, what: str, length: int) -> ContextOverflow:
        return ContextOverflow(
            f"{what} has {length} tokens; this model's window is {self._window}",
            param="input",
            hint="shorten it, split it, or let it be cut with `truncate`",
        )
