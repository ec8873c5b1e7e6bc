"""The built-in guard and the chooser."""

from __future__ import annotations

import pytest

from dockyard import guards
from dockyard.errors import SettingsError
from dockyard.settings import Settings

pytestmark = pytest.mark.anyio


async def test_patterns_block_and_name_their_place_not_the_text() -> None:
    (guard,) = guards.chosen(Settings(deny_patterns=("x{3}", "(?i)secret-\\d+")))
    assert (await guard.check("fine")).action == "pass"
    verdict = await guard.check("my SECRET-42 is")
    assert (verdict.action, verdict.guard, verdict.reason) == ("block", "pattern", "deny pattern 2")


async def test_holdback_covers_the_longest_match() -> None:
    (guard,) = guards.chosen(Settings(deny_patterns=("abc", "a{2,9}")))
    assert guard.holdback == 10
    (wide,) = guards.chosen(Settings(deny_patterns=("a.*b",)))
    assert wide.holdback == 257


def test_no_patterns_no_guard() -> None:
    assert guards.chosen(Settings()) == ()


def test_a_broken_pattern_stops_the_start() -> None:
    with pytest.raises(SettingsError, match="deny_patterns"):
        guards.chosen(Settings(deny_patterns=("(",)))
