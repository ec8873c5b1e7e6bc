"""What the tests of other people's clients share."""

from __future__ import annotations

KEY = "a-long-enough-secret"
