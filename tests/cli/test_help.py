"""Help is instant, complete, and imports nothing heavy."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

from dockyard.cli import HIDDEN, SECTIONS

VERBS = [name for section in SECTIONS.values() for name in section]
HEAVY = [
    "httpx",
    "pydantic",
    "litestar",
    "sqlalchemy",
    "xllamacpp",
    "rich",
    "prompt_toolkit",
    "granian",
    "asyncio",
    "anyio",
    "urllib3",
]
PROBE = """
import json, sys
from dockyard.cli import call
code = call(sys.argv[1:])
print(json.dumps({"code": code, "modules": sorted(sys.modules)}), file=sys.stderr)
"""


def ask(*arguments: str) -> tuple[str, dict]:
    done = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, timeout=60)
    return done.stdout, json.loads(done.stderr.splitlines()[-1])


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in [*VERBS, *HIDDEN])], ids=" ".join)
def test_help_says_something_and_imports_nothing_heavy(arguments: list[str]) -> None:
    text, found = ask(*arguments)
    assert found["code"] == 0
    assert text.startswith("Usage: dockyard")
    assert [name for name in HEAVY if name in found["modules"]] == []
    if arguments == ["--help"]:
        assert [verb for verb in VERBS if f"\n  {verb} " not in text] == []
        assert not any(name.startswith("dockyard.cli.") for name in found["modules"])


def test_importing_the_package_is_nearly_free() -> None:
    code = "import sys; before = set(sys.modules); import dockyard; print(len(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["serve", "--help"]], ids=" ".join)
def test_help_takes_under_150_milliseconds(arguments: list[str]) -> None:
    """On a machine whose Python starts in 10 ms: the least processor time of several runs, beside Python's own."""

    def seconds(*command: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    helps, starts = zip(
        *((seconds("-m", "dockyard", *arguments), seconds("-c", "pass")) for _ in range(9)), strict=True
    )
    assert min(helps) / min(starts) < 15


def test_every_setting_is_a_flag_of_serve() -> None:
    from dockyard import settings

    text, _ = ask("serve", "--help")
    for name, _, _ in settings.names():
        flag = name.replace("_", "-")
        assert f"--{flag} " in text or f"--{flag.removesuffix('s')} " in text or "--insecure-registry " in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_completion(shell: str) -> None:
    import os

    environ = {**os.environ, "_DOCKYARD_COMPLETE": f"complete_{shell}", "COMP_WORDS": "dockyard p", "COMP_CWORD": "1"}
    environ |= {"_TYPER_COMPLETE_ARGS": "dockyard p", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run([sys.executable, "-m", "dockyard"], capture_output=True, text=True, env=environ, check=False)
    assert {"ps", "pull", "push", "package", "pin"} <= set(done.stdout.replace('"', " ").replace(":", " ").split())
