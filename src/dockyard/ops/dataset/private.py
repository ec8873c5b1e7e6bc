"""Personal data in text: what has a form of its own, so that a rule can find it, with its checksum where it has one.

E-mail addresses, telephone numbers, payment cards (Luhn), bank accounts (IBAN, modulo 97), IP addresses, United States
social security numbers, and keys of well-known services. Names and addresses of people have no form and are not found:
a data set without a finding is not thereby anonymous.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import NamedTuple


class Finding(NamedTuple):
    """Where something private stands in a text, and of which sort it is."""

    start: int
    end: int
    sort: str


def _luhn(text: str) -> bool:
    digits = [int(each) for each in re.sub(r"\D", "", text)]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    return sum(each if at % 2 == 0 else sum(divmod(2 * each, 10)) for at, each in enumerate(reversed(digits))) % 10 == 0


def _iban(text: str) -> bool:
    plain = re.sub(r"\s", "", text).upper()
    return 15 <= len(plain) <= 34 and int("".join(str(int(each, 36)) for each in plain[4:] + plain[:4])) % 97 == 1


def _address(text: str) -> bool:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (found.is_loopback or found.is_unspecified or found.is_multicast)


def _telephone(text: str) -> bool:
    return 8 <= len(re.sub(r"\D", "", text)) <= 15 and not re.fullmatch(r"\d{4}-\d{2}-\d{2}.*", text)


_SORTS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("email", re.compile(r"\b[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+\b"), lambda _: True),
    ("iban", re.compile(r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]){11,30}\b"), _iban),
    ("card", re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?![\w.])"), _luhn),
    ("ssn", re.compile(r"(?<!\d)(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?!\d)"), lambda _: True),
    ("ip", re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])"), _address),
    ("phone", re.compile(r"(?<![\w+])(?:\+\d{1,3}[ .-]?)(?:\(?\d{1,4}\)?[ .-]?){2,5}\d{2,4}(?!\w)"), _telephone),
    ("phone", re.compile(r"(?<![\w+])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\w)"), _telephone),
    (
        "key",
        re.compile(r"\b(?:sk-[\w-]{20,}|gh[pousr]_\w{30,}|AKIA[0-9A-Z]{16}|xox[baprs]-[\w-]{10,}|hf_\w{30,})"),
        lambda _: True,
    ),
)


def find(text: str) -> list[Finding]:
    """What is private in a text, in order; findings don't overlap."""
    taken: list[Finding] = []
    for sort, pattern, real in _SORTS:
        for match in pattern.finditer(text):
            free = all(match.end() <= other.start or match.start() >= other.end for other in taken)
            if free and real(match.group()):
                taken.append(Finding(match.start(), match.end(), sort))
    return sorted(taken)


def redact(text: str) -> str:
    """The text with ``[EMAIL]`` and the like where something private stood."""
    parts, last = [], 0
    for finding in find(text):
        parts += [text[last : finding.start], f"[{finding.sort.upper()}]"]
        last = finding.end
    return "".join([*parts, text[last:]])
