"""Passages are other people's words: the guards see each before a model gets it, and may hold it back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from dockyard.guards import Classifier, Guard
from dockyard.knowledge.model import Hit

ATTACKS = frozenset({"prompt_injection", "jailbreak", "model_attack"})
CERTAIN = 0.9
"""Score from which the classifier's word counts: passages are prose, and a false alarm hides an answer."""


async def screened(
    hits: Sequence[Hit], guards: Sequence[Guard], classifier: Classifier | None
) -> tuple[list[Hit], int]:
    """The hits that may be shown to a model, and how many were held back."""
    kept: list[Hit] = []
    for hit in hits:
        text: str | None = hit.text
        for guard in guards:
            verdict = await guard.check(f"{hit.heading}\n{text}" if hit.heading else str(text))
            if verdict.action == "block":
                text = None
                break
            if verdict.action == "replace" and verdict.text is not None:
                text = verdict.text.removeprefix(f"{hit.heading}\n")
        if text is not None and classifier is not None and await asyncio.to_thread(attacks, classifier, text):
            text = None
        if text is not None:
            kept.append(hit if text == hit.text else msgspec.structs.replace(hit, text=text))
    return kept, len(hits) - len(kept)


def attacks(classifier: Classifier, text: str) -> bool:
    """Whether a text looks like an attack on a model."""
    flagged, scores = classifier.judge(text)
    return flagged and any(scores.get(kind, 0.0) >= CERTAIN for kind in ATTACKS)
