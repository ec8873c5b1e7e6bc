"""Loaded models: which are in memory, who may use them, and what happens when one dies.

``Fleet`` is the door. ``crew`` carries out with processes (``runner``) what ``schedule`` decides, which is pure, as are
the rules under it: ``admission`` and ``ledger`` (memory), ``pool`` and ``fairness`` (slots), ``routing`` and ``lanes``.
"""

from dockyard.fleet.explain import Explanation
from dockyard.fleet.fleet import Fleet
from dockyard.fleet.lease import Lease, LeasedStream
from dockyard.fleet.prepare import Parts
from dockyard.fleet.restarts import RestartPolicy

__all__ = ["Explanation", "Fleet", "Lease", "LeasedStream", "Parts", "RestartPolicy"]
