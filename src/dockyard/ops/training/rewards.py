"""Rewards that are computed: functions from what was asked and answered to a number, by name or from a file.

    answer      1 where the answer holds the record's ``answer`` as words of its own, else 0
    json        1 for JSON that parses, else 0
    length:40   1 at 40 words, less the further away, 0 at twice as many
    regex:…     1 where the expression matches, else 0

A file gives every function in it whose name begins with ``reward_``; each is called as ``f(prompts, completions,
**columns)`` with lists of equal length, texts in the first two, and returns as many numbers. The file is run: it is
code of whoever gives it.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dockyard.errors import DockyardError, InvalidRequest
from dockyard.ops.dataset.near import plain

Reward = Callable[..., list[float]]


def named(text: str) -> Reward:
    """The function that a name stands for. Raises InvalidRequest for one that is not known."""
    name, _, argument = text.partition(":")
    made = _NAMED.get(name)
    if made is None:
        raise InvalidRequest(
            f"{text!r} is no reward", param="rewards", hint=f"{', '.join(_NAMED)}, or a file with --code"
        )
    found = made(argument)

    def reward(*, completions: Sequence[Any], **columns: Any) -> list[float]:
        rows = [
            {key: values[at] for key, values in columns.items() if _fits(values, at)} for at in range(len(completions))
        ]
        return [found(said(each), row) for each, row in zip(completions, rows, strict=True)]

    reward.__name__ = text
    return reward


def from_file(path: Path) -> list[Reward]:
    """The reward functions of a Python file. Raises InvalidRequest where it can't be run or has none."""
    module = types.ModuleType("rewards")
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # noqa: S102 - the user's own code
    except Exception as error:
        raise InvalidRequest(f"the file with rewards fails: {type(error).__name__}: {error}", param="code") from error
    found = [
        _checked(name, value) for name, value in vars(module).items() if name.startswith("reward_") and callable(value)
    ]
    if not found:
        raise InvalidRequest("the file has no function whose name begins with reward_", param="code")
    return found


def said(completion: Any) -> str:
    """The text of an answer, which may come as messages."""
    if isinstance(completion, list):
        return "".join(str(turn.get("content") or "") for turn in completion)
    return str(completion)


def _checked(name: str, function: Callable[..., Any]) -> Reward:
    def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        texts = [said(each) for each in completions]
        try:
            values = [float(value) for value in function([said(each) for each in prompts], texts, **columns)]
        except DockyardError:
            raise
        except Exception as error:
            raise InvalidRequest(f"{name} fails: {type(error).__name__}: {error}", param="code") from error
        if len(values) != len(texts):
            raise InvalidRequest(f"{name} gave {len(values)} numbers for {len(texts)} answers", param="code")
        return values

    reward.__name__ = name
    return reward


def _fits(values: Any, at: int) -> bool:
    return isinstance(values, list) and at < len(values)


def _answer(_: str) -> Callable[[str, dict[str, Any]], float]:
    def found(text: str, row: dict[str, Any]) -> float:
        if "answer" not in row:
            raise InvalidRequest("the reward 'answer' needs a column answer in the data", param="rewards")
        return float(f" {plain(str(row['answer']))} " in f" {plain(text)} ")

    return found


def _json(_: str) -> Callable[[str, dict[str, Any]], float]:
    def found(text: str, _row: dict[str, Any]) -> float:
        try:
            msgspec.json.decode(text.encode())
        except msgspec.DecodeError:
            return 0.0
        return 1.0

    return found


def _length(argument: str) -> Callable[[str, dict[str, Any]], float]:
    if not argument.isdigit() or int(argument) < 1:
        raise InvalidRequest("the reward 'length' needs a number of words, as in length:40", param="rewards")
    wanted = int(argument)
    return lambda text, _: max(0.0, 1 - abs(len(text.split()) - wanted) / wanted)


def _regex(argument: str) -> Callable[[str, dict[str, Any]], float]:
    try:
        pattern = re.compile(argument)
    except re.error as error:
        raise InvalidRequest(f"{argument!r} is no regular expression: {error}", param="rewards") from error
    return lambda text, _: float(pattern.search(text) is not None)


_NAMED: dict[str, Callable[[str], Callable[[str, dict[str, Any]], float]]] = {
    "answer": _answer,
    "json": _json,
    "length": _length,
    "regex": _regex,
}
