"""Translation edit rate of the corpus, as sacrebleu computes it (Snover et al., AMTA 2006); lower is better."""

from __future__ import annotations

from typing import ClassVar

from dockyard.scorers import Means, Options
from dockyard.scorers._sacre import Sacre


class TerOptions(Options, frozen=True):
    """sacrebleu's."""

    normalized: bool = False
    no_punctuation: bool = False
    case_sensitive: bool = False


class Ter(Sacre):
    """Edits for a hundred words of the reference; statistics are edits and the reference's length."""

    name: ClassVar[str] = "ter"
    options = TerOptions

    def __init__(self, options: TerOptions, means: Means) -> None:  # noqa: ARG002 - the protocol's
        super().__init__(
            lambda metrics: metrics.TER(
                normalized=options.normalized,
                no_punct=options.no_punctuation,
                case_sensitive=options.case_sensitive,
            ),
            better="lower",
        )


PLUGIN = Ter
