"""Tasks of lm-evaluation-harness on a model as it is served, or on its files by the harness's own backend.

Served models are asked over ``/v1/completions`` with ``echo`` and prompt log-probabilities. Where no tokenizer is
given, a model of ours stands in the harness, which asks the server for token ids; with one it is the harness's own
``local-completions``. The harness is an extra, since it brings much along.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import msgspec

from dockyard.errors import EngineUnavailable, InvalidRequest, NotFound
from dockyard.types import Json

INSTALL = "pip install 'dockyard[harness]'"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What to run. ``tasks`` are names, or YAML files that define them. ``prefix`` is the text of the token that goes
    before texts without context, ``files`` a model's folder or GGUF file to measure instead of what is served."""

    model: str
    tasks: tuple[str, ...]
    limit: int | None = None
    shots: int | None = None
    chat: bool = False
    tokenizer: str | None = None
    prefix: str = ""
    files: str | None = None


def check(asked: Asked) -> None:
    """What can be said before a server is started and the harness imported, which takes seconds.

    Raises EngineUnavailable, InvalidRequest for files that define no task, and NotFound for those that are not there.
    """
    if asked.files is not None and not Path(asked.files).exists():
        raise NotFound(f"{asked.files}: there is no such file", param="files")
    if importlib.util.find_spec("lm_eval") is None:
        raise EngineUnavailable("lm-evaluation-harness is not installed", hint=INSTALL)
    _named(asked.tasks)


def run(asked: Asked, url: str | None, key: str | None = None) -> dict[str, dict[str, float]]:
    """The tasks' figures by task and metric. Raises what ``check`` raises, and InvalidRequest for unknown tasks."""
    check(asked)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import lm_eval
    from lm_eval.tasks import TaskManager

    names, folders = _named(asked.tasks)
    manager = TaskManager(include_path=folders or None)
    unknown = [name for name in names if not manager.match_tasks([name])]
    if unknown:
        raise InvalidRequest(f"the harness has no task {unknown[0]!r}", param="tasks", hint="`lm_eval ls tasks`")
    model, arguments = _model(asked, url, key)
    told = lm_eval.simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=names,
        num_fewshot=asked.shots,
        limit=asked.limit,
        device="cpu" if asked.files is not None else None,
        apply_chat_template=asked.chat,
        task_manager=manager,
        bootstrap_iters=0,
        log_samples=False,
    )
    return {task: _figures(found) for task, found in told["results"].items()}


def _model(asked: Asked, url: str | None, key: str | None) -> tuple[Any, dict[str, Json]]:
    if asked.files is not None:
        path = Path(asked.files)
        if path.suffix == ".gguf":
            return "hf", {"pretrained": str(path.parent), "gguf_file": path.name, "dtype": "float32"}
        return "hf", {"pretrained": str(path), "dtype": "float32"}
    if url is None:
        raise InvalidRequest("a served model needs the address of its server", param="url")
    if asked.tokenizer is None and not asked.chat:
        from dockyard.ops.evaluate._harness_model import Served

        return Served(url, key, asked.model, asked.prefix), {}
    os.environ["OPENAI_API_KEY"] = key or "none"
    if asked.chat:
        return "local-chat-completions", {"model": asked.model, "base_url": f"{url}/v1/chat/completions"}
    return "local-completions", {
        "model": asked.model,
        "base_url": f"{url}/v1/completions",
        "tokenizer_backend": "huggingface",
        "tokenizer": asked.tokenizer,
    }


def _named(tasks: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Task names, and the folders of those that are files."""
    names, folders = [], []
    for task in tasks:
        path = Path(task)
        if path.suffix not in (".yaml", ".yml"):
            names.append(task)
            continue
        if not path.is_file():
            raise InvalidRequest(f"{task}: there is no such file", param=task)
        # The harness has tags of its own in YAML, so only the line with the name is read.
        lines = [line for line in path.read_text().splitlines() if line.startswith("task:")]
        if not lines:
            raise InvalidRequest(f"{task}: no `task:` names it", param=task)
        names.append(lines[0].partition(":")[2].strip().strip("\"'"))
        folders.append(str(path.parent.resolve()))
    return names, list(dict.fromkeys(folders))


def _figures(found: dict[str, Json]) -> dict[str, float]:
    """Numbers only, and no errors that were not reckoned."""
    return {
        name.removesuffix(",none"): float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and "," in name and "_stderr" not in name
    }
