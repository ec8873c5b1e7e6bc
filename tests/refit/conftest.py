"""A Llama of two hundred thousand random weights with a tokenizer of its own, as an artifact in a store."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dockyard.artifact.store import Store
from dockyard.ops.pack import Sources, package

sys.path.insert(0, str(Path(__file__).parent))

TEXT = """The harbour was quiet that morning, and the first ship came in at seven. In 2024 twelve containers were lost.
def area(width: float, height: float) -> float: return width * height. Once upon a time there was a little crab who
wanted to see the world. It is "quoted" and it's bold; the cost: $3,000,000. What is a shipping container?
"""
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def small_tokenizer() -> Any:
    """Byte-level BPE with digits apart, trained on a few sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([TEXT] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
        chat_template=TEMPLATE,
    )


def small_model(tokenizer: Any) -> Any:
    """Random, with weights large enough that it prefers some words."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=1024, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.12,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    for name, weights in model.named_parameters():
        if "norm" in name and ".2." not in name:  # those of layer 2 stay ones, which OpenVINO leaves out of a graph
            torch.nn.init.uniform_(weights, 0.5, 1.5)
    return model.eval()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Matrices of this size are not worth sharing, and on a busy machine threads wait for each other for seconds."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as Hugging Face lays it out."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = small_tokenizer()
    small_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "LICENSE").write_text("Apache License\nVersion 2.0\n")
    return folder


@pytest.fixture(scope="session")
def tiny_adapter(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rank-4 adapter of random numbers on all linear layers, with alpha 12: three times its rank."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    config = LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PEFT's, about transformers
        adapted = get_peft_model(model, config)
    torch.manual_seed(3)
    for name, values in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(values, std=0.05)
    folder = tmp_path_factory.mktemp("adapter") / "pirate"
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="session")
def refit_store(tiny_folder: Path, tiny_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with ``tiny`` and its adapter ``pirate``; tests add to it, and take nothing away."""
    store = Store(tmp_path_factory.mktemp("refit") / "store")
    package(store, Sources(weights=(tiny_folder,)), reference=store.named("tiny"))
    package(store, Sources(weights=(tiny_adapter,)), reference=store.named("pirate"))
    return store
