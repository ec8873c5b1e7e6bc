"""The smallest model that can be packaged: a tokenizer that knows bytes, and a transformer of one narrow block."""

from __future__ import annotations

from pathlib import Path

from dockyard.ops._libraries import library


def write_tokenizer(folder: Path) -> Path:
    """A folder with both."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    transformers = library("transformers")
    transformers.set_seed(0)

    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    found.train_from_iterator(["the quick brown fox"], trainer)
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=found, eos_token="<|end|>", pad_token="<|end|>")
    words.save_pretrained(folder)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=len(words), **shape)).save_pretrained(folder)
    return folder
