"""Batches: files of requests that are answered in what interactive work leaves of the machine.

``lines`` reads and checks the input and words the output, ``share`` decides whose line is next, ``work`` is one batch
on its way and ``runner`` drives them all.
"""

from __future__ import annotations

from dockyard.gateway.batch.runner import Answered, Runner

__all__ = ["Answered", "Runner"]
