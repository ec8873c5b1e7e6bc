"""Text that looks like somebody's key or token, of the forms that their makers publish."""

from __future__ import annotations

import re

_FORMS = {
    "AWS key": ("A", r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
    "GitHub token": ("gh", r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b"),
    "GitHub fine-grained token": ("github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{60,255}\b"),
    "GitLab token": ("glpat-", r"\bglpat-[A-Za-z0-9_-]{20,64}\b"),
    "Slack token": ("xox", r"\bxox[abposr]-[A-Za-z0-9-]{20,255}\b"),
    "Stripe key": ("k_live_", r"\b[sr]k_live_[A-Za-z0-9]{20,255}\b"),
    "OpenAI or Anthropic key": ("sk-", r"\bsk-(?:ant-|proj-|svcacct-)?[A-Za-z0-9_-]{32,255}\b"),
    "Google API key": ("AIza", r"\bAIza[A-Za-z0-9_-]{35}\b"),
    "npm token": ("npm_", r"\bnpm_[A-Za-z0-9]{36}\b"),
    "PyPI token": ("pypi-AgE", r"\bpypi-AgE[A-Za-z0-9_-]{60,255}\b"),
    "Hugging Face token": ("hf_", r"\bhf_[A-Za-z0-9]{30,64}\b"),
    "Dockyard key": ("dky_", r"\bdky_[A-Za-z0-9_-]{40,64}\b"),
    "JSON web token": ("eyJ", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}"),
    "private key": (
        "PRIVATE KEY",
        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[^-]{20,}(?:-----END (?:[A-Z]+ )*PRIVATE KEY-----)?",
    ),
}
"""For each its name, what any such text contains, and its form."""

_COMPILED = {name: (part, re.compile(form)) for name, (part, form) in _FORMS.items()}


def credential(text: str) -> str | None:
    """What kind of credential is in the text, or None."""
    return next((name for name, (part, form) in _COMPILED.items() if part in text and form.search(text)), None)


def without(text: str) -> str:
    """The text with ``[KIND]`` in place of each."""
    for name, (part, form) in _COMPILED.items():
        if part in text:
            text = form.sub(f"[{name}]", text)
    return text
