"""A run as an evaluation log of inspect-ai (its JSON format, version 2), for ``inspect view`` and its analysis.

Each metric of an item becomes a score whose value is the item's own; statistics of corpus metrics go into its metadata,
since the mean of sentences' BLEU is not BLEU: the log's results hold the run's figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.ops.evaluate.result import Aggregate, Record, Run
from dockyard.types import Json

VERSION = 2
_STOPS = {"length": "max_tokens", "tool_calls": "tool_calls", "content_filter": "content_filter"}


def log_of(run: Run) -> dict[str, Json]:
    """The log as JSON."""
    model = f"openai-api/dockyard/{run.subject.name}"
    scorers = {each.metric.name: each for each in run.aggregates}
    return {
        "version": VERSION,
        "status": "success",
        "eval": _spec(run, model),
        "plan": {"name": "plan", "steps": [], "config": _config(run.parameters)},
        "results": {
            "total_samples": len(run.records),
            "completed_samples": len(run.records) - run.errors,
            "scores": [_result(each) for each in run.aggregates],
        },
        "stats": {
            "started_at": _time(run.began),
            "completed_at": _time(run.began + run.seconds),
            "model_usage": {model: _usage(run.usage.get("prompt_tokens", 0), run.usage.get("tokens", 0))},
        },
        "samples": [_sample(record, model, scorers) for record in run.records],
    }


def write(run: Run, path: Path) -> None:
    """Put the log into a file, in one step. Raises InvalidRequest where that can't be written."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(msgspec.json.format(msgspec.json.encode(log_of(run)), indent=2))
        part.replace(path)
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}", param=str(path)) from error


def _spec(run: Run, model: str) -> dict[str, Json]:
    return {
        "eval_id": run.id,
        "run_id": run.id,
        "created": _time(run.began),
        "task": run.suite,
        "task_id": run.suite_digest.partition(":")[2][:22],
        "task_version": 0,
        "task_args": {},
        "dataset": {
            "name": run.suite,
            "samples": len(run.records),
            "sample_ids": [record.id for record in run.records],
            "shuffled": False,
        },
        "model": model,
        "model_args": {},
        "config": {"epochs": 1, "fail_on_error": False},
        "packages": {"dockyard": version("dockyard")},
        "metadata": {
            "suite_digest": run.suite_digest,
            "data_digest": run.data_digest,
            "model_digest": run.subject.digest,
            "engine": run.subject.engine,
            "contamination": run.contamination.note,
        },
    }


def _result(found: Aggregate) -> dict[str, Json]:
    figures = {"value": found.value}
    if found.interval is not None:
        figures |= {"low": found.interval.low, "high": found.interval.high}
    return {
        "name": found.metric.name,
        "scorer": found.scorer,
        "scored_samples": found.n,
        "unscored_samples": found.errors,
        "params": {"signature": found.metric.signature} if found.metric.signature else {},
        "metrics": {
            name: {"name": name, "value": value, "params": {}} for name, value in figures.items() if value is not None
        },
    }


def _sample(record: Record, model: str, scorers: Mapping[str, Aggregate]) -> dict[str, Json]:
    answer = record.answer
    asked = record.prompt if record.prompt is not None else ""
    target: Json = list(record.references) if len(record.references) != 1 else record.references[0]
    if not target and record.label is not None:
        target = str(record.label)
    sample: dict[str, Json] = {
        "id": record.id,
        "epoch": 1,
        "input": asked,
        "target": target,
        "messages": [*_turns(asked)],
        "metadata": {"line": record.line, "input_digest": record.input},
        "scores": {name: _score(name, record, scorers) for name in record.scores},
        "output": {"model": model, "choices": []},
    }
    if record.error:
        sample["error"] = {"message": record.error, "traceback": "", "traceback_ansi": ""}
    if answer is not None:
        said = {"role": "assistant", "content": answer.text, "source": "generate", "model": model}
        sample["messages"].append(said)
        sample["output"] = {
            "model": model,
            "choices": [{"message": said, "stop_reason": _STOPS.get(answer.finish or "", "stop")}],
            "usage": _usage(answer.prompt_tokens, answer.tokens),
            "time": answer.seconds,
        }
        sample["total_time"] = answer.seconds
    return sample


def _turns(asked: Json) -> list[Json]:
    if isinstance(asked, list):
        return [*asked]
    return [{"role": "user", "content": asked}] if asked else []


def _score(name: str, record: Record, scorers: Mapping[str, Aggregate]) -> dict[str, Json]:
    values = record.scores[name]
    scorer = scorers[name].scorer if name in scorers else name
    return {
        "value": values[0] if len(values) == 1 else list(values),
        "answer": record.answer.text if record.answer is not None else None,
        "explanation": record.notes.get(scorer),
        "metadata": {"scorer": scorer},
    }


def _config(parameters: Mapping[str, Json]) -> dict[str, Json]:
    """Those of the parameters that the log's format knows."""
    known = ("temperature", "max_tokens", "top_p", "seed", "frequency_penalty", "presence_penalty")
    return {name: parameters[name] for name in known if name in parameters}


def _usage(asked: float, said: float) -> dict[str, Json]:
    return {"input_tokens": int(asked), "output_tokens": int(said), "total_tokens": int(asked + said)}


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()
