"""A chat model that is asked whether a sentence answers a question; how much likelier its Yes is than its No.

Asked for an answer, a small model says something to every question. Asked for one word it can say how sure it is: what
counts is not which word it writes but the probabilities of both as the first. The examples before the question are of a
lighthouse, half of them of a sentence that is about the right thing and does not say what is asked. They are the same
each time, and the sentence comes last: an engine that keeps the beginning of a prompt reads only what is new.

Names are left out of the question and the document's title of the sentence: that both are about the same thing is known
before, and where they repeat each other a small model takes that for an answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dockyard.errors import EngineError, ModelNotFound, UnsupportedParameter
from dockyard.knowledge.models import Models
from dockyard.types import Message

INSTRUCTION = "You judge whether a sentence states the answer to a question. Reply with one word: Yes or No."
EXAMPLES = (
    ("How tall is the lighthouse?", "The tower rises 41 metres from the rock.", "Yes"),
    ("How tall is the lighthouse?", "The lamp shines 18 miles out to sea.", "No"),
    ("Who winds the clock?", "Pieter Skaal cleans the lenses.", "No"),
    ("Who winds the clock?", "Every evening Lotte Vind sets the clock going again.", "Yes"),
    ("When is the lamp put out?", "The keeper's supper is served at 19:15.", "No"),
    ("What does a visitor pay to climb the stairs?", "Climbing up costs guests 12 guilders.", "Yes"),
    ("What is the keeper's salary?", "A new lens was bought for 900 guilders.", "No"),
    ("For how long may a boat stay at the jetty?", "Boats must leave the jetty after 3 hours.", "Yes"),
)
"""Questions, sentences, and what is to be said."""
LIKELIEST = 20
"""First tokens that are asked for: Yes and No are among them where the model understood what it is to say."""
LONGEST = 1000
"""Characters of a question, and of a sentence, that are read."""
SURE = 12.0
"""The most that the odds count, as a natural logarithm."""


async def odds(models: Models, judge: str, question: str, texts: Sequence[str]) -> list[float]:
    """For each sentence the natural logarithm of P(Yes) / P(No). One after the other: each goes on where the one before
    it left the engine's cache.

    Raises EngineError for a model that says neither to any of them, UnsupportedParameter where its engine tells no
    probabilities, and what the models raise.
    """
    found = []
    for text in texts:
        try:
            first = await models.first(judge, messages(question, text), LIKELIEST)
        except ModelNotFound as error:
            raise ModelNotFound(f"the judge: {error.message}", param="judge", hint=error.hint) from error
        except UnsupportedParameter as error:
            told = f"{judge!r} can't judge: {error.message}"
            raise UnsupportedParameter(told, param="judge", hint=ANOTHER) from error
        if not first:
            told = f"{judge!r} can't judge: its engine tells no probabilities of tokens"
            raise UnsupportedParameter(told, param="judge", hint=ANOTHER)
        found.append(compared(first))
    if found and all(one is None for one in found):
        raise EngineError(
            f"{judge!r} can't judge: asked for Yes or No, it says neither",
            param="judge",
            hint="name a chat model that answers at once; one that thinks first does not",
        )
    return [one or 0.0 for one in found]


ANOTHER = "name a model whose engine tells the likeliest tokens, such as llamacpp, vllm or another server"


def messages(question: str, sentence: str) -> list[Message]:
    """The conversation that a judge gets."""
    turns = [Message(role="system", content=INSTRUCTION)]
    for asked, said, answer in EXAMPLES:
        turns.append(Message(role="user", content=_put(asked, said)))
        turns.append(Message(role="assistant", content=answer))
    return [*turns, Message(role="user", content=_put(question[:LONGEST], sentence[:LONGEST]))]


def _put(question: str, sentence: str) -> str:
    return f"Question: {question}\nSentence: {sentence}\nDoes the sentence answer the question?"


def compared(first: Mapping[str, float]) -> float | None:
    """ln of P(Yes) / P(No) by the likeliest first tokens, at most ``SURE`` either way; None: neither is among them.

    One that is not among them is no likelier than the last that is, nor than all that is left.
    """
    yes, no = _mass(first, "yes"), _mass(first, "no")
    if yes is None and no is None:
        return None
    left = 1.0 - math.fsum(math.exp(value) for value in first.values())
    bound = min(min(first.values()), math.log(max(left, 1e-9)))
    value = (bound if yes is None else yes) - (bound if no is None else no)
    return max(-SURE, min(SURE, value))


def _mass(first: Mapping[str, float], word: str) -> float | None:
    """ln of the probability of a word, however it is spelt; None: it is not among them."""
    some = [math.exp(value) for token, value in first.items() if token.strip().lower() == word]
    return math.log(max(math.fsum(some), 1e-300)) if some else None
