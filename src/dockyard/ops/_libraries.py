"""The libraries that change models: imported when used, offline, silent, and without telemetry."""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod
from typing import Any

from dockyard.errors import EngineUnavailable

INSTALL = "pip install 'dockyard[refit]'"

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "NNCF_CI": "1",  # the one switch of its telemetry
}
"""Models come from the store and nowhere else."""

NOISY = ("bitsandbytes", "torchao", "torch.utils._pytree")
"""Loggers that warn when imported: of kernels on a hub, of kernels for GPUs, and of torchao's use of torch."""


def library(name: str) -> Any:
    """Import a module of the ``refit`` extra. Raises EngineUnavailable with the line that installs it."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    for logger in map(logging.getLogger, NOISY):
        if logger.level != logging.ERROR:  # setting it empties the memory of every logger
            logger.setLevel(logging.ERROR)
    try:
        found = importlib.import_module(name)
    except ImportError as error:
        raise EngineUnavailable(f"{name} can't be imported: {error}", hint=INSTALL) from error
    if name == "nncf":
        logging.getLogger("nncf").setLevel(logging.ERROR)
        _without_bars(importlib.import_module("nncf.common.logging.track_progress").track)
    if name in ("datasets", "trl"):
        importlib.import_module("datasets").disable_progress_bars()
    if name == "trl":
        # vLLM never shares this environment, and any folder of that name on the path is taken for it.
        importlib.import_module("trl.import_utils").is_vllm_available = lambda *_, **__: False  # type: ignore[attr-defined]
    if name == "transformers":
        found.logging.disable_progress_bar()
        warnings.filterwarnings("ignore", module="transformers")
    return found


def _without_bars(track: Any) -> None:
    """NNCF draws its progress on standard output, where the verbs print JSON, and has no switch for it."""
    if not isinstance(vars(track)["__init__"], partialmethod):
        track.__init__ = partialmethod(track.__init__, disable=True)


SMALL = 20_000_000
"""Weights below which a model is too small to share among threads: they would mostly wait for each other."""


@contextmanager
def threads(model: Any) -> Iterator[None]:
    """One thread for torch while a small model computes; as many as before for others, and afterwards."""
    torch = library("torch")
    before = torch.get_num_threads()
    if sum(values.numel() for values in model.parameters()) < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
