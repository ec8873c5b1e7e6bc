"""Print the pinned versions of a fresh environment that holds Dockyard, its extras and the ``dev`` group.

A throw-away environment, so that what a developer happens to have installed does not get into the lock.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *(line for lines in project["project"].get("optional-dependencies", {}).values() for line in lines),
        *project["dependency-groups"]["dev"],
    ]
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "install", *wanted], check=True, stdout=sys.stderr)
        frozen = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout
    print("# Written by `make lock`. Development and CI install exactly this.")
    # Which build of torch it is, with or without CUDA, is the index's to say.
    print(frozen.replace("+cpu", ""), end="")


if __name__ == "__main__":
    main()
