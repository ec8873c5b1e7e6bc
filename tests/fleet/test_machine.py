"""The budget: what the settings say, and never more than there is."""

from __future__ import annotations

import os

import psutil

from dockyard.fleet.machine import Machine, resident, size
from dockyard.hardware import Hardware
from dockyard.settings import Settings

GIB = 1 << 30


def test_the_budget_is_a_share_of_the_machine_or_what_was_set() -> None:
    box = Hardware(cores=1, memory_total=10 * GIB, memory_available=9 * GIB)
    assert Machine(Settings(), box).budget == int(8.5 * GIB)
    assert Machine(Settings(memory_budget=3 * GIB), box).budget == 3 * GIB
    generous = Machine(Settings(memory_budget=30 * GIB), box)
    assert generous.budget == 10 * GIB
    assert "leave of 10.0 GiB" in generous.source
    assert generous.ceiling(ours=5) == 9 * GIB


def test_on_a_real_machine_this_process_and_a_reserve_are_counted_in() -> None:
    total = Machine(Settings()).hardware.memory_total
    greedy = Machine(Settings(memory_budget=total))
    own = psutil.Process().memory_info().rss
    assert greedy.budget <= total - greedy.reserve - own // 2
    assert greedy.reserve >= 48 << 20
    assert 0 < greedy.ceiling(0) < total
    assert greedy.ceiling(GIB) - greedy.ceiling(0) > GIB // 2


def test_resident_size_of_what_is_gone_is_nothing() -> None:
    assert resident(None) == resident(os.getpid()) == resident(2**22 + 1) == 0
    assert resident(os.getppid()) > 0


def test_sizes_for_readers() -> None:
    assert [size(n) for n in (0, 1023, 1024, 3 << 20, 3 << 29)] == ["0 B", "1023 B", "1 KiB", "3 MiB", "1.5 GiB"]
