"""The tokenizer of a GGUF file as transformers has it, built from the file's own vocabulary and merges.

transformers' own reading of GGUF leaves out how words are split before merging, or took another family's splitting
altogether, and says nothing; so the splitting is chosen here by the name that the file states (``tokenizer.ggml.pre``,
llama.cpp's ``llama_vocab``), and the parity gate compares token ids with llama.cpp's.
"""

from __future__ import annotations

from typing import Any

from dockyard.errors import UnsupportedFormat
from dockyard.ops._gguf_read import GgufFile
from dockyard.ops._libraries import library
from dockyard.types import Json

CONTROL, USER_DEFINED = 3, 4
"""Values of ``tokenizer.ggml.token_type``: tokens that text is searched for before it is split."""

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    "qwen2": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{_TAIL}",
    "llama-bpe": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_TAIL}",
}
"""Splitting by one regular expression, in the words of the original tokenizer.json."""

DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})
"""GPT-2's splitting, after each digit was set apart."""

PLAIN = frozenset({"gpt-2", "default", "mpt", "olmo", "jais", "phi-2"})


def tokenizer_of(file: GgufFile) -> Any:
    """A ``PreTrainedTokenizerFast`` with special tokens and chat template. Raises UnsupportedFormat for a kind that is
    not known here."""
    values = file.values
    kind, pre = values.get("tokenizer.ggml.model"), values.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or pre not in {*PATTERNS, *DIGITS, *PLAIN}:
        raise UnsupportedFormat(
            f"{file.path.name} has a tokenizer of a kind that can't be rebuilt here: {kind}, {pre}",
            hint="convert from the safetensors version of this model, which brings its tokenizer",
        )
    tokens: list[str] = values["tokenizer.ggml.tokens"]

    def named(role: str) -> str | None:
        number = values.get(f"tokenizer.ggml.{role}_token_id")
        return tokens[number] if isinstance(number, int) and number < len(tokens) else None

    special = {f"{role}_token": text for role in ("bos", "eos") if (text := named(role))}
    for ours, theirs in (("unk_token", "unknown"), ("pad_token", "padding")):
        if text := named(theirs):
            special[ours] = text
    return library("transformers").PreTrainedTokenizerFast(
        tokenizer_object=_built(values, str(pre), special.get("bos_token")),
        chat_template=values.get("tokenizer.chat_template"),
        model_max_length=int(values.get(f"{values.get('general.architecture')}.context_length") or 1 << 20),
        clean_up_tokenization_spaces=False,
        **special,
    )


def _built(values: dict[str, Json], pre: str, bos: str | None) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokens: list[str] = values["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ", 1)) for pair in values.get("tokenizer.ggml.merges", ())]
    model = models.BPE(
        vocab={token: number for number, token in enumerate(tokens)}, merges=merges, ignore_merges=pre == "llama-bpe"
    )
    made = Tokenizer(model)
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre not in PATTERNS)
    if pre in PATTERNS:
        made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERNS[pre]), "isolated"), level])
    elif pre in DIGITS:
        made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level])
    else:
        made.pre_tokenizer = level
    if pre == "qwen2":
        made.normalizer = normalizers.NFC()
    made.decoder = decoders.ByteLevel()
    if values.get("tokenizer.ggml.add_bos_token") and bos is not None:
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokens.index(bos))]
        )
    kinds = values.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    made.add_tokens(
        [
            AddedToken(token, special=kind == CONTROL, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (CONTROL, USER_DEFINED)
        ]
    )
    return made
