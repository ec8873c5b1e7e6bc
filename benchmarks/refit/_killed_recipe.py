"""One run of the recipe that ``killed`` interrupts; a child process. Arguments: a store's folder, the recipe's file."""

from __future__ import annotations

import sys
from pathlib import Path

from dockyard.artifact.store import Store
from dockyard.ops.recipe import read
from dockyard.ops.recipe.run import run

if __name__ == "__main__":
    found = run(Store(Path(sys.argv[1])), read(sys.argv[2]))
    for step in found.steps:
        print(step.step, step.digest)
