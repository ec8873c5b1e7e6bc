"""Secrets are found however they are written, and nothing else is changed."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dockyard.tools.safety.hidden import strip, visible
from dockyard.tools.safety.redact import LEAST_LOOSE, Redactor, mapped, texts

secrets = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=6, max_size=60).filter(
    lambda text: len(text.strip()) >= 6 and sum(char.isalnum() for char in text) >= 4
)
around = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)

ENCODINGS = {
    "raw": lambda text, pad: text,
    "reversed": lambda text, pad: text[::-1],
    "hex": lambda text, pad: text.encode().hex(),
    "HEX": lambda text, pad: text.encode().hex().upper(),
    "base64": lambda text, pad: base64.b64encode(pad + text.encode() + pad).decode(),
    "base64url": lambda text, pad: base64.urlsafe_b64encode(pad + text.encode() + pad).decode().rstrip("="),
    "url": lambda text, pad: quote(text, safe=""),
    "form": lambda text, pad: quote_plus(text),
    "every byte as %xx": lambda text, pad: "".join(f"%{byte:02x}" for byte in text.encode()),
    "url twice": lambda text, pad: quote(quote(text, safe=""), safe=""),
    "json": lambda text, pad: json.dumps(text)[1:-1],
    "json, not ASCII": lambda text, pad: json.dumps(text, ensure_ascii=False)[1:-1],
    "json twice": lambda text, pad: json.dumps(json.dumps(text))[3:-3],
    "every character as \\u": lambda text, pad: "".join(
        f"\\u{unit:04x}" for unit in memoryview(text.encode("utf-16-le")).cast("H")
    ),
    "html": lambda text, pad: html.escape(text),
    "html numbers": lambda text, pad: "".join(f"&#{ord(char)};" for char in text),
}


def knowing(*values: str) -> Redactor:
    made = Redactor()
    for at, value in enumerate(values):
        made.know(f"s{at}", value, "owner")
    return made


@pytest.mark.parametrize("name", ENCODINGS)
@given(secret=secrets, before=around, after=around, pad=st.binary(max_size=4))
def test_a_secret_is_found_in_any_encoding_at_any_place(
    name: str, secret: str, before: str, after: str, pad: bytes
) -> None:
    written = ENCODINGS[name](secret, pad)
    # What stands around must not continue an escape, or the text would say something else.
    text = f"{before} {written} {after}"
    redactor = knowing(secret)
    assert redactor.find(text)
    clean = redactor.clean(text)
    assert not redactor.find(clean.replace("[secret s0]", "\0"))
    assert "[secret s0]" in clean


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@given(value=json_values, secret=secrets)
def test_values_without_the_secret_stay_as_they_are(value: object, secret: str) -> None:
    redactor = knowing(secret)
    assume(not any(redactor.find(text) for text in texts(value)))
    assert mapped(value, redactor.clean) == value


@given(secret=secrets, text=st.text(max_size=200))
@example(secret="hunter-2", text="hunter 2 went out")
def test_plain_text_in_which_it_is_not_stays(secret: str, text: str) -> None:
    loose = "".join(char for char in secret.lower() if char.isalnum())
    for char in "%\\&":
        text = text.replace(char, "")
    assume(secret not in text and secret[::-1] not in text and len(loose) < LEAST_LOOSE)
    assert knowing(secret).clean(text) == text


@given(secret=secrets, value=json_values, path=st.lists(st.sampled_from(["list", "dict", "key"]), max_size=5))
def test_it_is_found_at_any_depth(secret: str, value: object, path: list[str]) -> None:
    held: object = secret
    for step in path:
        held = {"list": [value, held], "dict": {"k": held, "other": value}, "key": {f"a {secret} b": held}}[step]
    if not isinstance(held, dict):
        held = {"top": held}
    redactor = knowing(secret)
    assert redactor.foreign(held, "another") == "s0"
    assert redactor.foreign(held, "owner") is None
    clean = mapped(held, redactor.clean)
    assert secret not in json.dumps(clean, ensure_ascii=False)


def test_two_secrets_that_overlap_are_both_taken_out() -> None:
    redactor = knowing("abcdef123456", "123456ghijkl")
    assert redactor.clean("<abcdef123456ghijkl>") == "<[secret s0]>"


def test_a_number_can_be_a_secret() -> None:
    redactor = knowing("4929123456781234")
    assert mapped({"card": 4929123456781234, "n": 5}, redactor.clean) == {"card": "[secret s0]", "n": 5}


def test_long_secrets_are_found_between_spaces_and_in_any_case() -> None:
    redactor = knowing("Tr0ub4dor-and-3-more")
    for text in ("T R 0 U B 4 D O R A N D 3 M O R E", "tr0ub4dor\nand\n3\nmore", "t-r-0-u-b-4-d-o-r-a-n-d-3-m-o-r-e"):
        assert redactor.clean(f"say: {text}!") == "say: [secret s0]!"


def test_base64_in_lines_and_hex_with_colons_are_found() -> None:
    secret = "a-secret-of-some-length-" * 4
    redactor = knowing(secret)
    assert secret[:10] not in redactor.clean(base64.encodebytes(b"xy" + secret.encode()).decode())
    assert base64.encodebytes(b"xy" + secret.encode()).decode()[10:30] not in redactor.clean(
        base64.encodebytes(b"xy" + secret.encode()).decode()
    )
    assert redactor.clean(secret.encode().hex(":")) == "[secret s0]"


def test_a_line_of_a_private_key_is_found_by_itself() -> None:
    body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw\nggSjAgEAAoIBAQC7VJTUt9Us8cKjMzEfYyji"
    redactor = knowing(f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
    assert redactor.clean("x ggSjAgEAAoIBAQC7VJTUt9Us8cKjMzEfYyji y") == "x [secret s0] y"
    assert redactor.clean("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"


def test_a_secret_spread_over_several_texts_is_told() -> None:
    redactor = knowing("correct-horse-battery")
    parts = [{"type": "text", "text": char} for char in "correcthorsebattery"]
    assert redactor.spread([one["text"] for one in parts]) == "s0"
    assert redactor.spread(["correct", "mule"]) is None


def test_values_that_are_too_short_are_not_looked_for() -> None:
    assert knowing("1234").clean("1234") == "1234"


@given(text=st.text(st.characters(exclude_categories=("Cs", "Cc", "Cf")), max_size=100))
def test_text_that_can_be_seen_stays(text: str) -> None:
    assume(not any(char in "\u034f\u115f\u1160\u17b4\u17b5\u2028\u2029\u3164\uffa0" for char in text))
    assume(not any("\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef" for char in text))
    assert strip(text) == text


@given(text=st.text(max_size=100))
def test_stripping_twice_is_stripping_once(text: str) -> None:
    assert strip(strip(text)) == strip(text)


@pytest.mark.parametrize(
    "text",
    [
        "два слова\n\tпереход\r\n",
        "👨‍👩‍👧 and ❤️ and 🏴󠁧󠁢󠁳󠁣󠁴󠁿",
        "می‌خواهم",
        "日本語 … “quoted” — fine",
        "क्‍ष",
    ],
)
def test_honest_writing_keeps_its_joiners(text: str) -> None:
    assert strip(text) == text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a\u200bb\u2060c\ufeff", "abc"),
        ("red \x1b[31malert\x1b[0m", "red alert"),
        ("\x1b]0;title\x07text\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "textlink"),
        ("hi" + "".join(chr(0xE0000 + ord(char)) for char in "send it"), "hi"),
        ("user\u202egnp.exe\u202c", "usergnp.exe"),
        ("bell\x07 back\x08", "bell back"),
        ("vs\ufe00\ufe01\ufe02", "vs"),
    ],
)
def test_what_cant_be_seen_goes(text: str, clean: str) -> None:
    assert strip(text) == clean
    assert visible(text).isprintable()
