"""What ``pyproject.toml`` needs, a requirement a line: ``python scripts/needed.py [EXTRA,…]``."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def needed(extras: str) -> list[str]:
    """The project's requirements and those of the extras. Exits for one that it does not have."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    known = project["optional-dependencies"]
    wanted = [name.strip() for name in extras.split(",") if name.strip()]
    strange = [name for name in wanted if name not in known]
    if strange:
        raise SystemExit(f"EXTRAS: there is no {', '.join(strange)}; there are {', '.join(sorted(known))}")
    return [*project["dependencies"], *(one for name in wanted for one in known[name])]


if __name__ == "__main__":
    print(*needed(",".join(sys.argv[1:])), sep="\n")
