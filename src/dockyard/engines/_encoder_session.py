"""A network that takes token ids: an ONNX graph under onnxruntime, or an OpenVINO IR under openvino.

ONNX is not given to openvino: on the INT8 graphs that embedding models are published as, onnxruntime took a quarter of
the processor time and a third of the memory (measured with bge-small and ms-marco-MiniLM).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from dockyard.engines._encoder_vectors import INPUTS
from dockyard.errors import EngineUnavailable, LoadFailed

Array = Any
"""A numpy array; numpy is only imported in the worker."""


class Session(Protocol):
    """``run`` may be called from ``lanes`` threads at once. ``mixes``: a text's result depends on its neighbours."""

    mixes: bool
    version: str

    def run(self, feeds: dict[str, Array]) -> Array:
        """The output that counts: (texts, tokens, width), (texts, width) or (texts, 1)."""
        ...


def open_session(graph: Path, lanes: int, threads: int) -> Session:
    """``lanes`` texts or batches at once, with ``threads`` for all of them. Raises LoadFailed, EngineUnavailable."""
    each = max(1, threads // lanes)
    return _OpenVino(graph, lanes, threads) if graph.suffix == ".xml" else _OnnxRuntime(graph, each)


def mixes(graph: Path) -> bool:
    """Whether a graph quantises activations by the range of the whole batch, so that texts change each other's result:
    measured with bge-small in INT8, a vector's cosine to itself fell to 0.989 in a batch of 32.
    """
    from dockyard.artifact.formats.onnx import read_model

    return graph.suffix == ".onnx" and "DynamicQuantizeLinear" in read_model(graph).operators


class _OnnxRuntime:
    def __init__(self, graph: Path, threads: int) -> None:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise EngineUnavailable(
                f"onnxruntime can't be imported: {error}", hint="pip install 'dockyard[encoder]'"
            ) from error
        ort.set_default_logger_severity(3)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A pattern for each length that ever came would make the arena grow by half as much again, for no speed.
        options.enable_mem_pattern = False
        try:
            self._session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # Its exceptions share no class of their own.
            raise LoadFailed(f"onnxruntime can't load {graph.name}: {error}") from error
        self._inputs = _known([each.name for each in self._session.get_inputs()], graph)
        self._output = _chosen([each.name for each in self._session.get_outputs()])
        self.mixes = mixes(graph)
        self.version = f"onnxruntime {ort.__version__}"

    def run(self, feeds: dict[str, Array]) -> Array:
        return self._session.run([self._output], {name: feeds[name] for name in self._inputs})[0]


class _OpenVino:
    mixes = False

    def __init__(self, graph: Path, lanes: int, threads: int) -> None:
        os.environ.setdefault("OPENVINO_TELEMETRY_DISABLED", "1")
        try:
            import openvino
        except ImportError as error:
            raise EngineUnavailable(
                f"openvino can't be imported: {error}", hint="pip install 'dockyard[openvino]'"
            ) from error
        import queue

        try:
            model = openvino.Core().compile_model(
                str(graph), "CPU", {"NUM_STREAMS": str(lanes), "INFERENCE_NUM_THREADS": str(threads)}
            )
        except RuntimeError as error:
            raise LoadFailed(f"openvino can't load {graph.name}: {error}") from error
        self._inputs = _known([port.any_name for port in model.inputs], graph)
        names = [next(iter(port.names), "") for port in model.outputs]
        self._output = names.index(_chosen(names))
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(lanes):
            self._requests.put(model.create_infer_request())
        self.version = f"openvino {openvino.__version__}"

    def run(self, feeds: dict[str, Array]) -> Array:
        request = self._requests.get()
        try:
            request.infer({name: feeds[name] for name in self._inputs})
            return request.get_output_tensor(self._output).data.copy()
        finally:
            self._requests.put(request)


def _known(inputs: list[str], graph: Path) -> list[str]:
    if unknown := [name for name in inputs if name not in INPUTS]:
        raise LoadFailed(f"{graph.name} wants the input {unknown[0]!r}, and a text has none", hint="is it an encoder?")
    return inputs


def _chosen(outputs: list[str]) -> str:
    """The output that answers: a finished embedding before hidden states before whatever comes first."""
    wanted = ("sentence_embedding", "logits", "last_hidden_state", "token_embeddings")
    return next((name for name in wanted if name in outputs), outputs[0])
