"""Makes GenAI's pipeline for a plan, and puts adapters to it.

A pipeline takes adapters only if it was made for them, which costs every request a little; so that is done at load only
where adapters are known of, else with the first request that names one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dockyard.engines import LoadPlan, _openvino_weights
from dockyard.engines._openvino_adapters import Weights, read
from dockyard.engines._openvino_graph import modules
from dockyard.engines._openvino_plan import Flags
from dockyard.engines._openvino_sight import sees
from dockyard.engines._process import tell
from dockyard.errors import LoadFailed
from dockyard.types import Adapter

PREFIX = "base_model.model."
ROUNDED_TOGETHER = 32
"""Activations that share a factor where they are rounded. Decoding SmolLM2 Q4_1 at 4 and 8 streams was 7 to 12 %
faster than in bfloat16 on two AMX cores; a prompt of 1,800 tokens took 2.6 times as long."""


class Maker:
    """``use`` and ``renew`` belong to the thread that steps; the rest may be asked from any."""

    def __init__(
        self, folder: Path, plan: LoadPlan, flags: Flags, always: Sequence[Adapter], draft: Path | None = None
    ) -> None:
        self._folder = folder
        self._draft = draft
        self._plan = plan
        self._flags = flags
        self.modules = {} if sees(folder) else modules_of(folder)
        self._always = [read(adapter, self.modules) for adapter in always]
        self._known: dict[str, Weights] = {}
        self._pipeline: Any = None
        self._adapted = flags.adapters or bool(always)
        self._key = ""

    @property
    def prefix_blocks(self) -> int:
        """Blocks of the prefix cache. With adapters there is none: GenAI would take one adapter's for another's."""
        return int(self._plan.details["pool"]) if self._flags.prefix_cache and not self._adapted else 0

    def know(self, key: str, adapter: Adapter) -> None:
        """Open an adapter that a request may then name by ``key``. Raises InvalidRequest."""
        if key not in self._known:
            self._known[key] = read(adapter, self.modules)

    def use(self, key: str) -> Any:
        if key and not self._adapted:
            self._adapted = True
            self._pipeline = None
            tell("loading again, prepared for adapters")
        if self._pipeline is None:
            self._pipeline = self._made()
            self._key = ""
        if self._adapted and key != self._key:
            self._put(key)
            self._key = key
        return self._pipeline

    def renew(self) -> None:
        self._pipeline = None

    def _made(self) -> Any:
        import openvino_genai

        scheduler = openvino_genai.SchedulerConfig()
        scheduler.num_kv_blocks = int(self._plan.details["pool"])
        scheduler.max_num_batched_tokens = int(self._plan.details["step"])
        scheduler.max_num_seqs = self._plan.parallel
        scheduler.enable_prefix_caching = bool(self.prefix_blocks)
        properties: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": self._plan.threads,
            "KV_CACHE_PRECISION": self._flags.kv_precision,
            "ENABLE_CPU_PINNING": False,
        }
        if not sees(self._folder):  # whose pipeline hands all of them on to its graphs
            properties["sampler_num_threads"] = self._plan.threads
        precision = self._flags.precision
        if precision != "auto":
            properties["INFERENCE_PRECISION_HINT"] = "f32" if precision == "q8" else precision
        if precision in ("f32", "q8"):  # else activations are rounded to eight bits in groups of GenAI's choice
            together = ROUNDED_TOGETHER
            if self._flags.weights == "int8":
                together = _openvino_weights.ROUNDED_TOGETHER
            properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0 if precision == "f32" else together
        if self._flags.prompt_lookup:
            properties["prompt_lookup"] = True
        if self._draft is not None:
            same = {name: value for name, value in properties.items() if name != "sampler_num_threads"}
            properties["draft_model"] = openvino_genai.draft_model(self._draft, "CPU", **same)
        if self._adapted:
            properties["adapters"] = self._blank()
        try:
            pipeline = openvino_genai.ContinuousBatchingPipeline(self._folder, scheduler, "CPU", properties)
        except RuntimeError as error:
            if "expect kvcache type" in str(error):
                raise LoadFailed(
                    f"what this processor computes with can't read a KV cache in {self._flags.kv_precision}",
                    hint="load it with another flag kv_precision; u8 goes with all",
                ) from error
            raise LoadFailed(f"OpenVINO can't load {self._folder.name}: {error}") from error
        if self._adapted:
            self._pipeline = pipeline
            self._put("")
        return pipeline

    def _blank(self) -> Any:
        """An adapter that touches every module and changes nothing: it is what makes room for the others."""
        import numpy as np
        import openvino
        import openvino_genai

        header: dict[str, Any] = {}
        size = 0
        for name, (inputs, outputs) in self.modules.items():
            for part, shape in (("A", (1, inputs)), ("B", (outputs, 1))):
                length = 4 * shape[0] * shape[1]
                header[f"{PREFIX}{name}.lora_{part}.weight"] = {
                    "dtype": "F32", "shape": shape, "data_offsets": (size, size + length),
                }  # fmt: skip
                size += length
        if not header:
            raise LoadFailed("the modules of this model have no names that an adapter could mean")
        text = json.dumps(header).encode()
        data = np.zeros(8 + len(text) + size, np.uint8)
        data[:8] = np.frombuffer(struct.pack("<Q", len(text)), np.uint8)
        data[8 : 8 + len(text)] = np.frombuffer(text, np.uint8)
        adapter = openvino_genai.Adapter(openvino.Tensor(data))
        return openvino_genai.AdapterConfig(adapter, 0.0, openvino_genai.AdapterConfig.Mode.MODE_DYNAMIC)

    def _put(self, key: str) -> None:
        """Adapters are set by GenAI's blocking ``generate`` alone, which runs only where nothing else does."""
        import numpy as np
        import openvino
        import openvino_genai

        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        chosen = [*self._always, *([self._known[key]] if key else [])]
        config = openvino_genai.GenerationConfig(max_new_tokens=1, ignore_eos=True, apply_chat_template=False)
        config.adapters = openvino_genai.AdapterConfig([(each.adapter, each.factor) for each in chosen])
        self._pipeline.generate([openvino.Tensor(np.zeros((1, 1), np.int64))], [config])


def modules_of(folder: Path) -> dict[str, tuple[int, int]]:
    """The linear layers that an adapter may change, with inputs and outputs of each."""
    import openvino

    return modules(openvino.Core().read_model(folder / "openvino_model.xml"))
