"""``python -m benchmarks.serving._peft GGUF FOLDER``: random adapters, and what PEFT answers with each of them.

Writes ``half.gguf`` (the starter model in F16), ``adapters/NAME`` and ``expected.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

NAME = "half.gguf"
ADAPTERS = 8
TOKENS = 16
PROMPTS = [
    f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    for text in ("Tell me about the sea.", "What is a cat?", "Write a poem.", "Count to ten.", "Who are you?",
                 "Name a colour.", "Explain rain.", "Say hello.")
]  # fmt: skip
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def half(source: Path, target: Path) -> None:
    """The same model with every matrix in F16."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, inner)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, values.astype(np.float16 if values.ndim > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def expect(folder: Path) -> dict[str, list[str]]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=NAME)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=NAME, dtype=torch.float32)
    model.generation_config.eos_token_id = None
    names = [f"adapter{number}" for number in range(ADAPTERS)]
    adapted = None
    answers: dict[str, list[str]] = {}
    for number, name in enumerate(names):
        torch.manual_seed(number)
        config = LoraConfig(r=8, lora_alpha=16, target_modules=LAYERS, task_type="CAUSAL_LM")
        if adapted is None:
            adapted = get_peft_model(model, config, adapter_name=name)
        else:
            adapted.add_adapter(name, config)
        for key, values in adapted.named_parameters():
            if f"lora_B.{name}." in key:
                torch.nn.init.normal_(values, std=0.04)
        adapted.set_adapter(name)
        answers[name] = []
        for prompt in PROMPTS:
            inputs = tokenizer(prompt, return_tensors="pt")
            made = adapted.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
            answers[name].append(tokenizer.decode(made[0, inputs.input_ids.shape[1] :], skip_special_tokens=True))
    assert adapted is not None
    adapted.save_pretrained(folder / "adapters")
    return answers


def main(source: Path, folder: Path) -> None:
    half(source, folder / NAME)
    (folder / "expected.json").write_text(json.dumps({"answers": expect(folder)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
