"""chrF of the corpus, as sacrebleu computes it; with ``words: 2`` chrF++ (Popović, WMT 2015 and 2017)."""

from __future__ import annotations

from typing import ClassVar

from dockyard.scorers import Means, Options
from dockyard.scorers._sacre import Sacre


class ChrfOptions(Options, frozen=True):
    """Orders of character and word n-grams, and how much more recall weighs than precision."""

    characters: int = 6
    words: int = 0
    beta: int = 2
    lowercase: bool = False


class Chrf(Sacre):
    """From 0 to 100; statistics are counts of n-grams of answer, reference and both."""

    name: ClassVar[str] = "chrf"
    options = ChrfOptions

    def __init__(self, options: ChrfOptions, means: Means) -> None:  # noqa: ARG002 - the protocol's
        super().__init__(
            lambda metrics: metrics.CHRF(
                char_order=options.characters,
                word_order=options.words,
                beta=options.beta,
                lowercase=options.lowercase,
            )
        )


PLUGIN = Chrf
