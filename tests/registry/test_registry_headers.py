"""The parsers of headers, on what real registries send and on nonsense."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.artifact.registry import headers
from dockyard.artifact.registry.headers import Challenge, ContentRange

TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_.", min_size=1, max_size=12)
VALUE = st.text(st.characters(codec="ascii", exclude_categories=("Cc",)), max_size=30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Basic", [Challenge("basic")]),
        ('Basic realm="Registry Realm"', [Challenge("basic", {"realm": "Registry Realm"})]),
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        (
            'Negotiate, Basic realm="x", Bearer realm="y" , error=invalid_token',
            [
                Challenge("negotiate"),
                Challenge("basic", {"realm": "x"}),
                Challenge("bearer", {"realm": "y", "error": "invalid_token"}),
            ],
        ),
        ("Negotiate YWJj==, Basic realm=x", [Challenge("negotiate"), Challenge("basic", {"realm": "x"})]),
        ('Bearer realm="a \\"quoted\\" word"', [Challenge("bearer", {"realm": 'a "quoted" word'})]),
        ("", []),
        ('=,"', []),
    ],
)
def test_challenges(text: str, expected: list[Challenge]) -> None:
    assert headers.challenges(text) == expected


@given(st.lists(st.tuples(TOKEN, st.dictionaries(TOKEN.map(str.lower), VALUE, min_size=1, max_size=4)), max_size=4))
def test_challenges_written_are_read(written: list[tuple[str, dict[str, str]]]) -> None:
    def quote(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quote(value)}" for name, value in params.items())
        for scheme, params in written
    )
    assert headers.challenges(text) == [Challenge(scheme.lower(), params) for scheme, params in written]


@given(st.text(max_size=200))
def test_no_parser_raises_on_nonsense(text: str) -> None:
    headers.challenges(text)
    headers.next_link(text)
    headers.content_range(text)
    headers.uploaded(text)
    headers.retry_after(text)
    headers.byte_range(text, 100)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('</v2/_catalog?last=b&n=2>; rel="next"', "/v2/_catalog?last=b&n=2"),
        ("<https://x/y?a=1,2;3>; rel=next", "https://x/y?a=1,2;3"),
        ('<a>; rel="prev", <b>; title="x"; rel="last next"', "b"),
        ('<a>; rel="previous"', None),
        (None, None),
    ],
)
def test_next_link(text: str | None, expected: str | None) -> None:
    assert headers.next_link(text) == expected


@given(st.integers(0, 10**15), st.integers(1, 10**15), st.booleans(), st.integers(0, 10**6))
def test_content_ranges_written_are_read(first: int, length: int, told: bool, rest: int) -> None:
    last = first + length - 1
    total = last + 1 + rest if told else None
    text = f"bytes {first}-{last}/{'*' if total is None else total}"
    assert headers.content_range(text) == ContentRange(first, last, total)


@pytest.mark.parametrize("text", ["bytes 5-4/10", "bytes 0-10/10", "items 0-1/2", "bytes 0-1", "bytes */10", "", None])
def test_impossible_content_ranges(text: str | None) -> None:
    assert headers.content_range(text) is None


@given(st.binary(min_size=0, max_size=50), st.integers(0, 60), st.integers(0, 60))
def test_byte_ranges_slice_as_the_rfc_says(data: bytes, start: int, end: int) -> None:
    found = headers.byte_range(f"bytes={start}-{end}", len(data))
    if end < start:
        assert found is None
    else:
        assert found is not None
        assert data[found[0] : found[1] + 1] == data[start : end + 1]
        assert (found[0] > found[1]) == (start >= len(data))
    tail = headers.byte_range(f"bytes=-{end}", len(data))
    assert tail is not None
    assert data[tail[0] : tail[1] + 1] == (data[-end:] if end else b"")
    assert headers.byte_range(f"bytes={start}-", len(data)) is not None


@pytest.mark.parametrize("text", ["bytes=0-1,3-4", "bytes=-", "bits=0-1", "bytes=a-b", None])
def test_ranges_that_are_ignored(text: str | None) -> None:
    assert headers.byte_range(text, 10) is None


@given(st.integers(1, 10**15))
def test_uploaded(last: int) -> None:
    assert headers.uploaded(f"0-{last}") == headers.uploaded(f"bytes=0-{last}") == last + 1
    assert headers.uploaded("0-0") == 0
    assert headers.uploaded(f"1-{last}") is None


def test_retry_after() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert headers.retry_after("120") == 120.0
    assert headers.retry_after(format_datetime(now + timedelta(seconds=30), usegmt=True), now) == 30.0
    assert headers.retry_after(format_datetime(now - timedelta(seconds=30), usegmt=True), now) == 0.0
    assert headers.retry_after("soon") is None
    assert headers.retry_after(None) is None
