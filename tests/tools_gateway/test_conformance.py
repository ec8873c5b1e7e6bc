"""The protocol's own conformance suite, run against the gateway with the server ``everything`` behind it.

``--requirements`` names what each revision requires; extensions (tasks) are run by it too, and not scored. Behind a
server of the legacy era the newest revision's questions have other names than the suite's server gives them, so that
cell is tried by ``test_eras``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

HOME = Path(sys.prefix) / "mcp-conformance"
PACKAGES = ("@modelcontextprotocol/conformance@0.2.0-alpha.12", "node@22")
"""The suite, and the Node that it needs, which is newer than what systems have."""

REQUIRED = {"2025-11-25": 30, "2026-07-28": 37}


@pytest.fixture(scope="session")
def suite() -> list[str]:
    """The command line of the suite, installed once from npm's registry."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    HOME.mkdir(parents=True, exist_ok=True)
    stamp = HOME / "installed"
    with FileLock(HOME / "lock"):
        if not stamp.exists() or stamp.read_text() != " ".join(PACKAGES):
            command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(HOME), *PACKAGES]
            done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
            if done.returncode:
                pytest.skip(f"the suite can't be installed: {done.stderr[-300:]}")
            stamp.write_text(" ".join(PACKAGES))
    modules = HOME / "node_modules"
    return [
        str(modules / "node" / "bin" / "node"),
        str(modules / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"),
    ]


@pytest.fixture(params=["modern", "legacy"])
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def gateway(era: str) -> Iterator[str]:
    """The address of a gateway in a process of its own, before a server of this era."""
    here = Path(__file__).parent
    command = [sys.executable, str(here / "conformance_gateway.py"), era]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=here) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@pytest.mark.parametrize(
    ("era", "revision"),
    [("modern", "2025-11-25"), ("modern", "2026-07-28"), ("legacy", "2025-11-25")],
    indirect=["era"],
)
def test_all_required_scenarios_pass(suite: list[str], gateway: str, revision: str, tmp_path: Path) -> None:
    command = [*suite, "server", "--url", f"{gateway}/mcp", "--requirements", revision, "-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    summary = done.stdout.partition("=== SUMMARY ===")[2]
    assert done.returncode == 0, summary or done.stderr[-2000:]
    scored = summary.partition("Total:")[0]
    passed = [line for line in scored.splitlines() if line.startswith("✓")]
    assert len(passed) >= REQUIRED[revision], summary
