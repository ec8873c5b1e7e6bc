"""What runs inside the sandbox: the checks in one process, and in another the program that they check.

The text of this file is what two interpreters are started with, so it imports nothing of ours. The checks' process
knows the word that says "finished"; the kernel keeps its memory and its descriptors from the other, which is started
afresh and never had it. What a program answers comes over as plain data, or as a handle whose attributes can be read
and called: an object that calls itself equal to anything is compared where it has no say.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import json
import os
import subprocess
import sys
import traceback
import types
from typing import Any

_NOT_DUMPABLE = (4, 0)
_PLAIN = (type(None), bool, str, float)


class Door:
    """Lines of JSON in and out. ``objects`` is what the handles stand for, on the side that made them."""

    def __init__(self, read: int, write: int) -> None:
        self._in, self._out = os.fdopen(read, "rb"), os.fdopen(write, "wb")
        self.objects: list[Any] = []

    def send(self, value: Any) -> None:
        self._out.write(json.dumps(value).encode() + b"\n")
        self._out.flush()

    def receive(self) -> Any:
        """What the other side sends; None where it is gone."""
        line = self._in.readline()
        return json.loads(line) if line else None


def packed(value: Any, handle: Any) -> Any:
    """A value as JSON; ``handle`` gives the number of an object that is not plain data, or raises TypeError."""
    if isinstance(value, _PLAIN):
        return {"f": float.__repr__(value)} if isinstance(value, float) else value
    if isinstance(value, int):
        return {"i": int.__format__(value, "x")}
    if isinstance(value, complex):
        return {"c": [repr(value.real), repr(value.imag)]}
    if isinstance(value, bytes):
        return {"b": value.hex()}
    if isinstance(value, dict):
        return {"d": [[packed(key, handle), packed(each, handle)] for key, each in value.items()]}
    for mark, kind in (("l", list), ("t", tuple), ("s", set), ("z", frozenset)):
        if isinstance(value, kind):
            return {mark: [packed(each, handle) for each in value]}
    return {"o": handle(value)}


def opened(value: Any, handle: Any) -> Any:
    """The value that was packed; ``handle`` gives the object of a number."""
    if not isinstance(value, dict):
        return value
    ((mark, inner),) = value.items()
    if mark == "d":
        return {opened(key, handle): opened(each, handle) for key, each in inner}
    if mark in "ltsz":
        return {"l": list, "t": tuple, "s": set, "z": frozenset}[mark](opened(each, handle) for each in inner)
    if mark == "c":
        return complex(float(inner[0]), float(inner[1]))
    return {"f": float, "i": lambda text: int(text, 16), "b": bytes.fromhex, "o": handle}[mark](inner)


class Remote:
    """Something of the program's, as the checks have it."""

    def __init__(self, door: Door, number: int) -> None:
        self.__dict__["_there"] = (door, number)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        told = [packed(each, _number) for each in args]
        named = {name: packed(each, _number) for name, each in kwargs.items()}
        found, after = _asked(self, {"call": [told, named]})
        for mine, theirs in zip(args, after, strict=False):
            _renewed(mine, theirs)
        return found

    def __getattr__(self, name: str) -> Any:
        return _asked(self, {"get": name})[0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and self.__getattr__("__eq__")(other) is True

    def __hash__(self) -> int:
        return _number(self)

    def __bool__(self) -> bool:
        for name in ("__bool__", "__len__"):
            with contextlib.suppress(AttributeError):
                return bool(self.__getattr__(name)())
        return True

    def __len__(self) -> Any:
        try:
            return self.__getattr__("__len__")()
        except AttributeError as error:
            raise TypeError(str(error)) from None

    def __getitem__(self, key: Any) -> Any:
        return self.__getattr__("__getitem__")(key)

    def __str__(self) -> str:
        return str(self.__getattr__("__str__")())

    def __iter__(self) -> Any:
        found = self.__getattr__("__iter__")()
        while True:
            try:
                yield found.__getattr__("__next__")()
            except StopIteration:
                return


def _number(value: Any) -> int:
    if isinstance(value, Remote):
        return int(value.__dict__["_there"][1])
    raise TypeError(f"the checks can't hand a {type(value).__name__} to the program that they check")


def _asked(one: Remote, what: dict[str, Any]) -> tuple[Any, list[Any]]:
    door, number = one.__dict__["_there"]

    def handle(each: int) -> Remote:
        return Remote(door, each)

    door.send({"of": number, **what})
    reply = door.receive()
    if reply is None:
        raise RuntimeError("the program that is checked is gone")
    if "raised" in reply:
        kind = getattr(builtins, str(reply["raised"]), None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            raise kind(reply["told"])
        raise RuntimeError(f"{reply['raised']}: {reply['told']}")
    return opened(reply["value"], handle), [opened(each, handle) for each in reply["after"]]


def _renewed(mine: Any, theirs: Any) -> None:
    """What the program did to a list, a dictionary or a set that it was given."""
    if type(mine) is not type(theirs) or mine == theirs:
        return
    if isinstance(mine, list):
        mine[:] = theirs
    elif isinstance(mine, dict | set):
        mine.clear()
        mine.update(theirs)


def answer(read: int, write: int) -> None:
    """The program's process: it runs it, tells its names, and does what the checks ask for until they end."""
    door = Door(read, write)
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(door.receive(), "<program>", "exec"), space)  # noqa: S102 - what this process is for
    sys.stdout.flush()

    def kept(value: Any) -> int:
        door.objects.append(value)
        return len(door.objects) - 1

    names = {}
    for name, value in space.items():
        if isinstance(value, types.ModuleType):
            names[name] = {"m": value.__name__}
        elif not name.startswith("__"):
            # What holds itself, or has too much, is no plain data: the checks do without that name.
            with contextlib.suppress(RecursionError, MemoryError):
                names[name] = packed(value, kept)
    door.send(names)
    with contextlib.suppress(BrokenPipeError):  # the checks are gone, and with them whoever would be told
        while (what := door.receive()) is not None:
            try:
                door.send(_done(door, what, kept))
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
                door.send({"raised": type(error).__name__, "told": str(error)})
    sys.stdout.flush()


def _done(door: Door, what: dict[str, Any], kept: Any) -> dict[str, Any]:
    one = door.objects[what["of"]]
    if "get" in what:
        return {"value": packed(getattr(one, what["get"]), kept), "after": []}
    args, named = what["call"]
    given = [opened(each, door.objects.__getitem__) for each in args]
    value = one(*given, **{name: opened(each, door.objects.__getitem__) for name, each in named.items()})
    after = [packed(each, kept) if isinstance(each, list | dict | set) else None for each in given]
    return {"value": packed(value, kept), "after": after}


def check() -> None:
    """The checks' process: it starts the other, and says the word if both come to their ends."""
    import ctypes

    if ctypes.CDLL(None).prctl(*_NOT_DUMPABLE, 0, 0, 0):
        raise OSError("the checks can't be kept from the program")
    asked = json.loads(sys.stdin.buffer.read())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    (its_read, write), (read, its_write) = os.pipe(), os.pipe()
    command = [sys.executable, "-I", "-S", "-c", asked["source"], str(its_read), str(its_write)]
    child = subprocess.Popen(command, pass_fds=(its_read, its_write))
    os.close(its_read)
    os.close(its_write)
    door = Door(read, write)
    with contextlib.suppress(BrokenPipeError):
        door.send(asked["program"])
    names = door.receive()
    if names is None:
        # It ended by itself, and has said why.
        os._exit(1 if child.wait() else 0)
    space = {"__name__": "__main__", **{name: _value(door, each) for name, each in names.items()}}
    try:
        exec(compile(asked["checks"], "<checks>", "exec"), space)  # noqa: S102 - and this one
    except BaseException as error:  # noqa: BLE001 - an end of the checks before their own, too
        sys.stdout.flush()
        traceback.print_exception(error)
        os._exit(1)
    sys.stdout.flush()
    door.send(None)
    child.wait()
    os.write(1, asked["word"].encode())


def _value(door: Door, told: Any) -> Any:
    if isinstance(told, dict) and "m" in told:
        name = str(told["m"])
        return importlib.import_module(name) if name.partition(".")[0] in sys.stdlib_module_names else None
    return opened(told, lambda number: Remote(door, number))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        answer(int(sys.argv[1]), int(sys.argv[2]))
    else:
        check()
