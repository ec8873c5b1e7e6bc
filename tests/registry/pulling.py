"""A process that pulls one name and may be killed at any moment: ``python pulling.py HOME NAME``."""

from __future__ import annotations

import sys

from dockyard.artifact.store import Store
from dockyard.artifact.transfer import pull
from dockyard.settings import Settings

if __name__ == "__main__":
    settings = Settings(home=sys.argv[1], starter="")
    print(pull(Store(settings.store_path), sys.argv[2], settings).descriptor.digest)
