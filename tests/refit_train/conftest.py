"""What the folder's tests share."""

from __future__ import annotations

from training_help import run, shelf

__all__ = ["run", "shelf"]
