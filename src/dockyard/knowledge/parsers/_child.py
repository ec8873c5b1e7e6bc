"""The process that parses apart: ``python -m dockyard.knowledge.parsers._child MEMORY``.

It reads requests from its standard input and writes answers to its standard output: four bytes of length, then msgpack.
A request is ``[name of the parser, path, data, bounds]``, an answer ``[true, Parsed]`` or ``[false, code, message,
hint]``.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import Any, BinaryIO

import msgspec

from dockyard.errors import ArtifactError, DockyardError
from dockyard.knowledge.parsers import Bounds, named

_LENGTH = struct.Struct(">I")


def main() -> None:
    """Serve until the input ends."""
    import logging
    import resource
    import warnings

    memory = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    while (request := read(source)) is not None:
        answer = _answer(*request)
        sink.write(_LENGTH.pack(len(answer)) + answer)
        sink.flush()


def read(source: BinaryIO) -> Any:
    """One request; None at the end."""
    head = source.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    return msgspec.msgpack.decode(source.read(_LENGTH.unpack(head)[0]))


def _answer(parser: str, path: str, data: bytes, bounds: Any) -> bytes:
    told: list[Any]
    try:
        told = [True, named(parser).parse(data, path, msgspec.convert(bounds, Bounds))]
    except DockyardError as error:
        told = [False, error.code, error.message, error.hint or ""]
    except MemoryError:
        told = [False, "unsafe_content", "parsing it takes more memory than a document may", ""]
    except ModuleNotFoundError as error:
        told = [False, "engine_unavailable", f"{error.name} is not installed", "pip install 'dockyard[knowledge]'"]
    except Exception as error:  # noqa: BLE001 - whatever a file makes a library raise is that file's record
        told = [False, ArtifactError.code, f"it can't be parsed: {type(error).__name__}: {error}"[:300], ""]
    return msgspec.msgpack.encode(told)


if __name__ == "__main__":
    main()
