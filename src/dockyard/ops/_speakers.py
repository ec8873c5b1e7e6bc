"""One model in one runtime, asked for tokens and for probabilities: what the parity gate compares.

Each reads an artifact's files as they are served: a GGUF by llama.cpp, IR by OpenVINO with its own tokenizer graph,
safetensors by transformers, ONNX by ONNX Runtime. Precision is the best that the runtime offers, so that what differs
is the file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from dockyard.errors import LoadFailed, UnsupportedFormat
from dockyard.ops._checkpoint import open_files, open_tokenizer
from dockyard.ops._libraries import SMALL, library, threads
from dockyard.types import ModelFiles

ALTERNATIVES = 2048
"""Probabilities that llama.cpp is asked for at each position, the greatest; those of other tokens it does not tell."""
WINDOW = 1024


class Speaker(Protocol):
    """``close`` frees the model."""

    runtime: str

    def tokens(self, text: str) -> list[int]:
        """The ids of a text in which special tokens may be written out; nothing is added before or after."""
        ...

    def logprobs(self, ids: Sequence[int], last: int) -> Any:
        """Natural-log probabilities of the next token after each of the ``last`` positions: float32 [last, words].
        No number stands where the runtime does not tell one."""
        ...

    def close(self) -> None: ...


def speaker(files: ModelFiles) -> Speaker:
    """The runtime that serves this format. Raises UnsupportedFormat, LoadFailed, EngineUnavailable."""
    if files.format == "gguf":
        return Llama(Path(files.weights[0]))
    if files.format == "openvino":
        return Ir(Path(files.weights[0]).parent)
    if files.format == "safetensors":
        return Transformers(files)
    if files.format == "onnx":
        return Onnx(files)
    raise UnsupportedFormat(f"{files.reference} is {files.format}: there is no runtime here to compare it in")


class Transformers:
    """Float32 in torch."""

    runtime = "transformers"

    def __init__(self, files: ModelFiles | None = None, *, model: Any = None, tokenizer: Any = None) -> None:
        if files is not None:
            found = open_files(files)
            model, tokenizer = found.model, found.tokenizer
        self._model, self._tokenizer = model, tokenizer

    def tokens(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def logprobs(self, ids: Sequence[int], last: int) -> Any:
        torch = library("torch")
        with torch.inference_mode(), threads(self._model):
            logits = self._model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, -last:]
            return torch.log_softmax(logits.float(), -1).numpy()

    def close(self) -> None:
        self._model = None


class Llama:
    """llama.cpp, through the server in its wheel. ``adapter`` is a GGUF adapter that is always on."""

    runtime = "llama.cpp"

    def __init__(self, path: Path, *, adapter: Path | None = None) -> None:
        from dockyard.artifact.formats import read_facts
        from dockyard.engines import LoadPlan
        from dockyard.engines._llama_embedded import Embedded
        from dockyard.engines._llama_flags import Flags
        from dockyard.hardware import cores

        facts = read_facts([path])
        self._words = facts.vocabulary or 0
        files = ModelFiles(
            reference=path.name, digest="", directory=str(path.parent), format="gguf", weights=(str(path),),
            facts=facts, adapters=(str(adapter),) if adapter else (),
        )  # fmt: skip
        small = 0 < (facts.parameters or 0) < SMALL
        plan = LoadPlan(
            engine="llamacpp", context=WINDOW, parallel=1, threads=1 if small else cores(),
            details={
                "pool": WINDOW, "batch": 512, "ubatch": 512, "prompt_cache": 0, "mode": "generate", "pooling": "",
            },
        )  # fmt: skip
        self._server: Any = Embedded(files, plan, Flags(), None, [])
        self._letter = self.tokens("a")[0]

    def tokens(self, text: str) -> list[int]:
        body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
        return [int(each) for each in json.loads(self._server.ask("/tokenize", body))["tokens"]]

    def logprobs(self, ids: Sequence[int], last: int) -> Any:
        import numpy as np

        rows = [self._next(ids[: len(ids) - last + 1 + place]) for place in range(last)]
        return np.stack(rows)

    def _next(self, ids: Sequence[int]) -> Any:
        import numpy as np

        count = min(ALTERNATIVES, self._words)
        # The probabilities told are the model's, before any drawing; but none are told where an end of text or a part
        # of a character is drawn. So a plain letter always is.
        body = {
            "prompt": list(ids), "n_predict": 1, "n_probs": count, "temperature": 0, "cache_prompt": True,
            "logit_bias": [[self._letter, 1000.0]],
        }  # fmt: skip
        replies: list[str | bytes] = []

        def receive(reply: str | bytes) -> bool:
            replies.append(reply)
            return False

        self._server.stream("complete", json.dumps(body).encode(), receive)
        (choice,) = json.loads(replies[0])["choices"]
        found = choice["logprobs"]["content"][0]["top_logprobs"]
        row = np.full(self._words, np.nan, np.float32)
        row[[each["id"] for each in found]] = [
            each["logprob"] if each["logprob"] is not None else -1e3 for each in found
        ]
        return row

    def close(self) -> None:
        self._server.close()


class Ir:
    """OpenVINO in float32, with the tokenizer graph that lies beside the model."""

    runtime = "openvino"

    def __init__(self, folder: Path) -> None:
        openvino, genai = library("openvino"), library("openvino_genai")
        library("openvino_tokenizers")
        core = openvino.Core()
        exact = {
            "INFERENCE_PRECISION_HINT": "f32",
            "KV_CACHE_PRECISION": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        }
        try:
            self._tokenizer = genai.Tokenizer(str(folder))
            self._request = core.compile_model(folder / "openvino_model.xml", "CPU", exact).create_infer_request()
        except RuntimeError as error:
            raise LoadFailed(f"OpenVINO can't load {folder.name}: {str(error).strip().splitlines()[-1]}") from error
        self._inputs = {port.any_name for port in self._request.get_compiled_model().inputs}

    def tokens(self, text: str) -> list[int]:
        return [int(each) for each in self._tokenizer.encode(text, add_special_tokens=False).input_ids.data[0]]

    def logprobs(self, ids: Sequence[int], last: int) -> Any:
        import numpy as np

        count = len(ids)
        self._request.reset_state()
        given = {
            "input_ids": np.array([list(ids)], np.int64),
            "attention_mask": np.ones((1, count), np.int64),
            "position_ids": np.arange(count, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        found = self._request.infer({name: value for name, value in given.items() if name in self._inputs})
        return _log_softmax(np.asarray(found["logits"])[0, -last:])

    def close(self) -> None:
        self._request = None


class Onnx:
    """ONNX Runtime on a model that onnxruntime-genai's builder made; tokens by the tokenizer beside it."""

    runtime = "onnxruntime"

    def __init__(self, files: ModelFiles) -> None:
        folder = Path(files.weights[0]).parent
        config = library("transformers").AutoConfig.from_pretrained(folder, local_files_only=True)
        self._head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._tokenizer = open_tokenizer(files)
        options = library("onnxruntime").SessionOptions()
        options.log_severity_level = 3
        self._session = library("onnxruntime").InferenceSession(
            files.weights[0], options, providers=["CPUExecutionProvider"]
        )

    def tokens(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def logprobs(self, ids: Sequence[int], last: int) -> Any:
        import numpy as np

        kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
        given = {"input_ids": np.array([list(ids)], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}
        given["position_ids"] = np.arange(len(ids), dtype=np.int64)[None]
        feed = {}
        for port in self._session.get_inputs():
            if port.name in given:
                feed[port.name] = given[port.name]
            else:  # the cache before the first token: [1, heads, 0, size of a head], of which some have but names
                empty = (1, 0, 0, self._head)
                shape = [size if isinstance(size, int) else empty[place] for place, size in enumerate(port.shape)]
                feed[port.name] = np.zeros(shape, kinds[port.type])
        logits = self._session.run(["logits"], feed)[0]
        return _log_softmax(np.asarray(logits)[0, -last:])

    def close(self) -> None:
        self._session = None


def _log_softmax(logits: Any) -> Any:
    import numpy as np

    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    return (wide - np.log(np.exp(wide).sum(-1, keepdims=True))).astype(np.float32)
