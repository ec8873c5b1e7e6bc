"""BLEU of the corpus, as sacrebleu computes it (Papineni et al., ACL 2002; Post, WMT 2018)."""

from __future__ import annotations

from typing import ClassVar, Literal

from dockyard.scorers import Means, Options
from dockyard.scorers._sacre import Sacre


class BleuOptions(Options, frozen=True):
    """sacrebleu's. ``tokenize``: "13a" if not said; "intl", "char", "zh", "none" …"""

    tokenize: str | None = None
    lowercase: bool = False
    smooth: Literal["exp", "floor", "add-k", "none"] = "exp"
    order: int = 4


class Bleu(Sacre):
    """From 0 to 100; statistics are lengths, matches and totals of n-grams."""

    name: ClassVar[str] = "bleu"
    options = BleuOptions

    def __init__(self, options: BleuOptions, means: Means) -> None:  # noqa: ARG002 - the protocol's
        super().__init__(
            lambda metrics: metrics.BLEU(
                lowercase=options.lowercase,
                tokenize=options.tokenize,
                smooth_method=options.smooth,
                max_ngram_order=options.order,
                force=True,
            )
        )


PLUGIN = Bleu
