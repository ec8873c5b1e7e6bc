"""A random Llama of some 150 thousand weights with a tokenizer of its own, as an artifact: trains in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dockyard.artifact.store import Store
from dockyard.ops import pack

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COLOURS = ["red", "green", "blue", "black", "white"]
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
WORDS = [*COLOURS, *NUMBERS, "what", "is", "the", "colour", "of", "number"]


def tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    found.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=found, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )


def write_model(folder: Path, seed: int = 0, layers: int = 2) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def keep_model(store: Store, folder: Path, name: str = "tiny", **shape: int) -> str:
    """Package one under this name; its digest."""
    done = pack.package(store, pack.Sources(weights=(write_model(folder, **shape),)), reference=store.named(name))
    return done.entry.descriptor.digest


def questions(path: Path, count: int = 40) -> Path:
    """Prompt and completion by a rule that can be learnt."""
    rows = [
        {"prompt": f"what is the colour of {NUMBERS[n % 10]} {NUMBERS[n // 10 % 10]}", "completion": COLOURS[n % 5]}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
