"""Loaded models: which are in memory, who may use them, and what happens when one dies.

``Fleet`` carries out with processes (``runner``) what ``schedule`` decides; ``admission`` and ``ledger`` are the pure
rules under it.
"""

from dockyard.fleet.fleet import Fleet
from dockyard.fleet.lease import Lease, LeasedStream
from dockyard.fleet.prepare import Parts
from dockyard.fleet.restarts import RestartPolicy

__all__ = ["Fleet", "Lease", "LeasedStream", "Parts", "RestartPolicy"]
