"""Runs in the sandbox, with nothing but the standard library: a model's Python, whose tools are calls over the pipe.

It gets one request "run" as a line of JSON-RPC on its input, asks "call" for each use of a tool, and answers with what
was printed. Whatever the code does to this process, the other side decides about every call.
"""

import contextlib
import io
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

MOST = 1 << 20


class ToolError(Exception):
    """A tool failed, or may not be used."""


class Pipe:
    def __init__(self) -> None:
        self._read, self._write = sys.stdin, sys.stdout
        sys.stdin, sys.stdout = io.StringIO(), io.StringIO()
        self._count = 0

    def receive(self) -> Any:
        line = self._read.readline()
        if not line:
            sys.exit(0)
        return json.loads(line)

    def send(self, **fields: Any) -> None:
        self._write.write(json.dumps({"jsonrpc": "2.0", **fields}) + "\n")
        self._write.flush()

    def call(self, name: str, arguments: dict[str, Any]) -> Any:
        self._count += 1
        try:
            self.send(id=self._count, method="call", params={"name": name, "arguments": arguments})
        except TypeError as error:
            raise ToolError("arguments must be JSON: " + str(error)) from None
        answer = self.receive()
        if "error" in answer:
            raise ToolError(answer["error"]["message"])
        return answer["result"]["value"]


def function(pipe: Pipe, name: str, parameters: list[str]) -> Callable[..., Any]:
    """A tool as a Python function; positional arguments are taken in the order of its schema."""

    def tool(*given: Any, **named: Any) -> Any:
        if len(given) > len(parameters):
            raise TypeError(name + " takes at most " + str(len(parameters)) + " arguments")
        return pipe.call(name, {**dict(zip(parameters, given)), **named})  # noqa: B905 - it may be given fewer

    tool.__name__ = name
    return tool


def main() -> None:
    pipe = Pipe()
    asked = pipe.receive()
    known: dict[str, Any] = {"ToolError": ToolError, "__name__": "__main__"}
    for one in asked["params"]["tools"]:
        known[one["python"]] = function(pipe, one["name"], one["parameters"])
    printed, failed = io.StringIO(), False
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            exec(compile(asked["params"]["code"], "<code>", "exec"), known)  # noqa: S102 - what this process is for
        except SystemExit:
            pass
        except BaseException as error:  # noqa: BLE001 - of code that may do anything; it is told
            failed = True
            frames = traceback.extract_tb(error.__traceback__)
            lines = [str(frame.lineno) for frame in frames if frame.filename == "<code>"]
            at = " (line " + lines[-1] + ")" if lines else ""
            printed.write(type(error).__name__ + at + ": " + str(error) + "\n")
    pipe.send(id=asked["id"], result={"output": printed.getvalue()[:MOST], "failed": failed})


if __name__ == "__main__":
    main()
