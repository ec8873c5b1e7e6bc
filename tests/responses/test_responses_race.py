"""A background response that ends at an awkward moment."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dockyard.api.openai_responses import _kept_or_running

pytestmark = pytest.mark.anyio


async def test_one_that_ends_while_its_row_is_read_is_found_ended() -> None:
    rows = [SimpleNamespace(status="in_progress"), SimpleNamespace(status="completed")]

    async def get(_id: str, _owner: str) -> SimpleNamespace:
        return rows.pop(0)

    tables: Any = SimpleNamespace(responses=SimpleNamespace(get=get), running={})
    found, job = await _kept_or_running(tables, "resp_1", "ann")
    assert (found.status, job) == ("completed", None)
