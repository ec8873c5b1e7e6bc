"""How much likelier a question gets after a sentence than after one that says nothing: zero for most sentences, and far
above it for one that answers.

A language model that reads a sentence expects the questions that it answers (Sachan et al. 2022, "Improving Passage
Retrieval with Zero-Shot Question Generation"). It is a text that goes on, and not a chat, and nothing is generated: the
question's own tokens are scored. What any such question is worth is taken off, since "how" is likelier than "whose"
after whatever sentence.

The examples are of a lighthouse, as the judge's are, and the same each time: an engine that keeps the beginning of a
prompt reads only what is new.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dockyard.errors import InvalidRequest, UnsupportedFormat
from dockyard.knowledge.models import Models

INSTRUCTION = "Each sentence is followed by a question to which it is the answer."
EXAMPLES = (
    ("The tower rises 41 metres from the rock.", "How tall is the lighthouse?"),
    ("Every evening Lotte Vind sets the clock going again.", "Who winds the clock?"),
    ("Climbing up costs guests 12 guilders.", "What does a visitor pay to climb the stairs?"),
    ("Boats must leave the jetty after 3 hours.", "For how long may a boat stay at the jetty?"),
    ("The keeper's supper is served at 19:15.", "When does the keeper eat in the evening?"),
    ("A new lens was bought for 900 guilders.", "What was the price of the new lens?"),
)
"""Sentences, and what each answers."""
NOTHING = "It is a nice place, and many people come here."
"""A sentence that answers none."""
LONGEST = 300
"""Characters of a question that are scored: each of its tokens takes as long as one that is generated."""
LONGEST_SENTENCE = 1000
"""Characters of a sentence that are read."""


async def gains(models: Models, model: str, question: str, sentences: Sequence[str]) -> list[float] | None:
    """For each sentence by how much it raises the mean log-probability of the question's tokens; None: the model's
    engine refuses to score the tokens of a prompt. One after the other, and that of ``NOTHING`` once.

    Raises what the models raise.
    """
    text = f" {' '.join(question[:LONGEST].split())}\n"
    try:
        found = [_mean(await models.likelihood(model, prompt(one), text)) for one in (NOTHING, *sentences)]
    except (InvalidRequest, UnsupportedFormat):
        return None
    told = [value for value in found if value is not None]
    return [value - told[0] for value in told[1:]] if len(told) == len(found) else None


def prompt(sentence: str) -> str:
    """What stands before the question."""
    before = "".join(f"Sentence: {said}\nQuestion: {asked}\n\n" for said, asked in EXAMPLES)
    return f"{INSTRUCTION}\n\n{before}Sentence: {' '.join(sentence[:LONGEST_SENTENCE].split())}\nQuestion:"


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
