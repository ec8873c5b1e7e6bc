"""Schemathesis makes requests out of our own OpenAPI description, and holds the answers against it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clients_help import KEY

LEFT_OUT = "(/stop|/pull|/push|/load|/create|/ready)$"
"""What stops the server, goes to the network or takes long by design; /ready answers 503 on purpose."""
UNFIT = ("positive_data_acceptance", "allow_header_conformance")
"""Checks that do not hold here: fields depend on each other and on what the store has, which a schema can't say; and
the framework answers OPTIONS for one of a path's handlers only."""


@pytest.fixture(scope="module")
def lone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server whose store may be changed by anything."""
    from serving import serving

    with serving(tmp_path_factory.mktemp("fuzzed"), api_keys=[KEY], log_level="warning") as found:
        yield found


@pytest.mark.timeout(600)
def test_the_api_keeps_to_its_description(
    suites_python: Path, lone_server: Any, tmp_path: Path, record: Callable[[str, str, str], None]
) -> None:
    """No server error, no undocumented status or type, nothing invalid accepted, wrong methods refused as such."""
    program = suites_python.parent / "st"
    command = [
        str(program), "run", f"{lone_server.url}/openapi.json", "--header", f"Authorization: Bearer {KEY}",
        "--phases", "examples,coverage,fuzzing", "--max-examples", "3", "--seed", "1", "--no-color",
        "--exclude-path-regex", LEFT_OUT, "--exclude-checks", ",".join(UNFIT), "--request-timeout", "20",
        "--suppress-health-check", "all", "--continue-on-failure",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, "".join(done.stdout.partition(" FAILURES ")[1:])[:6000] + done.stderr[-2000:]
    made = re.search(r"(\d+) generated", done.stdout)
    operations = re.search(r"(\d+) selected", done.stdout)
    assert made is not None, done.stdout[-3000:]
    assert int(made[1]) > 1000
    version = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    counted = f"{made[1]} requests" + (f" to {operations[1]} operations" if operations else "")
    record("schemathesis on /openapi.json", version, f"{counted}, no failure")
