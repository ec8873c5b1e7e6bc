"""The page on compatibility is complete, and its way of asking tells the cases apart."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "scripts"))


@pytest.fixture(scope="module")
def script() -> Any:
    import compatibility

    return compatibility


@pytest.fixture(scope="module")
def asker(script: Any) -> Iterator[Any]:
    with script.asker() as found:
        yield found


def test_every_endpoint_and_field_of_the_client_is_on_the_page(script: Any) -> None:
    assert script.missing() == []


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("temperature", "honoured"),
        ("stream", "honoured"),
        ("user", "accepted, no effect"),
        ("audio", "refused by name"),
        ("modalities", '`["text"]` accepted, no effect; `["text", "audio"]` refused by name'),
    ],
)
def test_what_becomes_of_a_field_is_found_by_asking(script: Any, asker: Any, field: str, said: str) -> None:
    assert script.shown(script.verdicts(asker, script.METHODS[0], field)) == said


def test_the_same_request_twice_is_no_difference(script: Any, asker: Any) -> None:
    """What is new in every answer (identities, times) must not look like the effect of a field."""
    for method in script.METHODS:
        if method.route.startswith("POST") and "{id}" not in method.route:
            first, second = asker.ask(method, method.base), asker.ask(method, method.base)
            assert first == second, method.route
