"""Tokens to text, as they come: whole UTF-8 characters only, and nothing of a stop string.

GenAI's own decoder runs a network for each call. A byte-level vocabulary needs only a table, which is made once and
tried on a text; where the table disagrees with the decoder, the decoder is asked after all.
"""

from __future__ import annotations

import codecs
import re
from typing import Any, Protocol

PROBE = "Hello wörld,\n\n\tdef f(x): return 1234 + x  # 日本語 🙂 naïve café"
_SPECIAL = re.compile(rb"[<\[].*[>\]]", re.DOTALL)
_BYTE = re.compile(rb"<0x([0-9A-F]{2})>")

SPOKEN = frozenset({
    b"<think>", b"</think>", b"<tool_call>", b"</tool_call>", b"<tool_response>", b"</tool_response>",
    b"<|tool_call>", b"<tool_call|>", b"[TOOL_CALLS]", b"<|python_tag|>",
})  # fmt: skip
"""Tokens that GenAI's decoder of GGUF files takes for control tokens, but which belong to the answer."""

ENDS = frozenset({
    b"<|im_end|>", b"<|endoftext|>", b"<|end_of_text|>", b"<|eot_id|>", b"<|eom_id|>", b"</s>", b"<|end|>",
    b"<end_of_turn>", b"<|return|>", b"<|call|>",
})  # fmt: skip
"""Tokens that end an answer whatever the header calls the end: as llama.cpp has it."""


class Spelling(Protocol):
    """One choice's text. ``add`` returns what is whole; ``end`` what is left."""

    def add(self, ids: list[int]) -> str: ...

    def end(self) -> str: ...


class Vocabulary:
    """What each token says: ``pieces`` as bytes, empty for control tokens, and the ``ends`` among them."""

    def __init__(self, tokenizer: Any) -> None:
        found: dict[bytes, int] = tokenizer.get_vocab()
        size = max(found.values(), default=-1) + 1
        self.raw: list[bytes] = [b""] * size
        for piece, token in found.items():
            self.raw[token] = piece
        self.pieces = list(self.raw)
        marks = [token for token, piece in enumerate(self.raw) if _SPECIAL.fullmatch(piece) and piece not in SPOKEN]
        said = tokenizer.decode([[token] for token in marks]) if marks else []
        for token, text in zip(marks, said, strict=True):
            if not text:
                self.pieces[token] = b""
        end = tokenizer.get_eos_token_id()
        self.ends = {token for token in marks if self.raw[token] in ENDS} | ({end} if end >= 0 else set())
        self._tokenizer = tokenizer
        self._strip = False
        self._table = self._fits(tokenizer) or self._fits_sentencepiece(tokenizer)

    def spelling(self) -> Spelling:
        return _Table(self.pieces, self._strip) if self._table else _Decoded(self._tokenizer)

    def text(self, ids: list[int]) -> str:
        """What the tokens say together, control tokens too."""
        return b"".join(self.raw[token] for token in ids).decode("utf-8", "replace") if self._table else ""

    def piece(self, token: int) -> bytes:
        """What a token says, control tokens too."""
        return self.raw[token] if 0 <= token < len(self.raw) else b""

    def _fits(self, tokenizer: Any) -> bool:
        ids = [int(token) for token in tokenizer.encode(PROBE, add_special_tokens=False).input_ids.data.reshape(-1)]
        said = b"".join(self.pieces[token] for token in ids).decode("utf-8", "replace")
        if self._strip:
            said = said.removeprefix(" ")
        return bool(said == tokenizer.decode(ids))

    def _fits_sentencepiece(self, tokenizer: Any) -> bool:
        for token, piece in enumerate(self.pieces):
            byte = _BYTE.fullmatch(piece)
            self.pieces[token] = bytes([int(byte[1], 16)]) if byte else piece.replace("▁".encode(), b" ")
        self._strip = True
        return self._fits(tokenizer)


class _Table:
    def __init__(self, pieces: list[bytes], strip: bool) -> None:
        self._pieces = pieces
        self._strip = strip
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, ids: list[int]) -> str:
        pieces = self._pieces
        text = self._decoder.decode(b"".join([pieces[token] for token in ids]))
        if self._strip and text:
            self._strip = False
            text = text.removeprefix(" ")
        return text

    def end(self) -> str:
        return self._decoder.decode(b"", final=True)


class _Decoded:
    """Decodes what came since the last place at which the text was whole, with the token before it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._said = ""

    def add(self, ids: list[int]) -> str:
        self._ids += ids
        text: str = self._tokenizer.decode(self._ids)
        if text.endswith("�"):
            return ""
        new, self._said = text[len(self._said) :], text
        return new

    def end(self) -> str:
        return str(self._tokenizer.decode(self._ids))[len(self._said) :] if self._ids else ""


class Stops:
    """Cuts a text at the first of ``strings``; holds back what may be the beginning of one."""

    def __init__(self, strings: tuple[str, ...]) -> None:
        self._strings = [each for each in strings if each]
        self._held = ""
        self.hit: str | None = None

    def add(self, text: str) -> str:
        if not self._strings:
            return text
        text = self._held + text
        found = [(at, each) for each in self._strings if (at := text.find(each)) >= 0]
        if found:
            at, self.hit = min(found)
            self._held = ""
            return text[:at]
        keep = max(_overlap(text, each) for each in self._strings)
        cut = len(text) - keep
        self._held = text[cut:]
        return text[:cut]

    def end(self) -> str:
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` begin ``stop``."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-length:]):
            return length
    return 0
