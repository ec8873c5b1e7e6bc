"""What an answer is worth: the protocol of a scorer, what it is shown and returns, and the chooser.

A scorer is a file of this package, or an entry point of group ``dockyard.scorers``, that binds ``PLUGIN`` to a class::

    class Length:
        name = "length"
        options = Options                      # a frozen struct: its fields are the keys of a suite's YAML
        def __init__(self, options: Options, means: Means) -> None: ...
        needs = frozenset({"text"})            # what the runner must ask of the model
        metrics = (Metric(name="length"),)
        async def score(self, item: Item, answer: Answer) -> Score: ...
        def combine(self, metric: str, sums: Sequence[float], n: int) -> float: ...

For each metric ``score`` gives the *statistics* of one item, a tuple of numbers, and ``combine`` makes the metric's
value of their sums over ``n`` items. So a mean (statistics ``(value,)``, combined to ``sum / n``) and a corpus metric
(BLEU: counts of n-grams and lengths) are one thing, and whoever resamples items needs no other door.
A scorer that can't judge an answer raises DockyardError: the item counts as an error, never as a nought.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar, Literal, Protocol, cast

import msgspec

from dockyard import plugins
from dockyard.errors import InvalidRequest, NotFound
from dockyard.types import Json

Need = Literal["text", "likelihood", "reference", "embeddings", "judge", "sandbox"]
"""``text``: generated answers. ``likelihood``: log-probabilities of given texts. ``reference``: right answers in the
data. The others come by its means."""


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to ask. ``row`` are the columns it was made from; ``line`` is where they stand in the data.

    ``prompt`` is text, or messages. ``references`` are right answers; ``choices`` the possible ones and ``label`` the
    right one's number; ``text`` is what perplexity reads.
    """

    id: str
    line: int = 0
    row: dict[str, Json] = {}
    prompt: str | list[dict[str, Json]] = ""
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    label: int | None = None
    text: str = ""


class Likelihood(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How likely the model holds a text: the natural-log probability of its ``tokens`` together.

    ``greedy``: each was the likeliest; None where the server does not tell.
    """

    logprob: float
    tokens: int
    greedy: bool | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the model said. ``samples`` are all its answers where several were asked for; ``text`` is the first.

    ``likelihoods``: one for each of the item's choices, or one for its ``text``. Times are seconds.
    """

    text: str = ""
    samples: tuple[str, ...] = ()
    reasoning: str = ""
    finish: str | None = None
    likelihoods: tuple[Likelihood, ...] = ()
    prompt_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0


class Metric(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One figure of a scorer. ``kind``: a mean of numbers, a proportion of yes and no, or of the whole corpus.

    ``signature`` says all that the figure depends on, where it has more settings than a name (sacrebleu's, say).
    """

    name: str
    kind: Literal["mean", "proportion", "corpus"] = "mean"
    better: Literal["higher", "lower"] = "higher"
    signature: str = ""


class Score(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An item's statistics by metric, and a word on how they came about. All items of a metric have equally many."""

    values: Mapping[str, tuple[float, ...]]
    note: str = ""


class Means(Protocol):
    """What a scorer may use beside the answer; models are named as their server knows them."""

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text. Raises DockyardError."""
        ...

    async def ask(self, model: str, messages: Sequence[Mapping[str, Json]], **fields: Json) -> str:
        """One answer of a chat model, say a judge; ``fields`` are OpenAI's own. Raises DockyardError."""
        ...


class NoMeans:
    """Of runs that have no server: scorers of plain text need none."""

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:  # noqa: ARG002
        raise InvalidRequest(f"nothing here can compute embeddings with {model}", hint="score through a server")

    async def ask(self, model: str, messages: Sequence[Mapping[str, Json]], **fields: Json) -> str:  # noqa: ARG002
        raise InvalidRequest(f"nothing here can ask {model}", hint="score through a server")


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of each scorer's options."""


class Scorer(Protocol):
    """One way to judge answers, built from its options."""

    name: str
    needs: frozenset[Need]
    metrics: tuple[Metric, ...]

    def begin(self, items: Sequence[Item]) -> None:
        """Shown all items before the first is scored; ``metrics`` may depend on them. ``Mean`` does nothing here."""
        ...

    async def score(self, item: Item, answer: Answer) -> Score:
        """The statistics of one item. Raises DockyardError where it can't be judged."""
        ...

    def combine(self, metric: str, sums: Sequence[float], n: int) -> float:
        """The metric's value over ``n`` items whose statistics sum to ``sums``."""
        ...


class Kind(Protocol):
    """What a plug-in binds: a class of scorers. ``options`` is its struct, built of a suite's keys."""

    name: ClassVar[str]
    options: ClassVar[type[Any]]

    def __call__(self, options: Any, means: Means) -> Scorer: ...


class Mean:
    """``combine`` of scorers whose metrics are means: the sum by the count."""

    def begin(self, items: Sequence[Item]) -> None:
        """Nothing of a mean depends on the other items."""

    def combine(self, metric: str, sums: Sequence[float], n: int) -> float:  # noqa: ARG002 - the protocol's
        return sums[0] / n if n else float("nan")


class Chosen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A scorer as a suite names it, and as a result records it."""

    name: str
    options: dict[str, Json] = {}


def names() -> list[str]:
    """The scorers that can be chosen."""
    return list(plugins.find("scorers"))


def kind(name: str) -> Kind:
    """The class of this name. Raises NotFound with near names, and InvalidRequest for a plug-in that is broken."""
    found = plugins.find("scorers")
    plugin = found.get(name.replace("_", "-"))
    if plugin is None:
        near = get_close_matches(name, found, 1)
        hint = f"did you mean {near[0]}?" if near else f"one of: {', '.join(found)}"
        raise NotFound(f"there is no scorer {name!r}", param="scorers", hint=hint)
    if plugin.error is not None:
        raise InvalidRequest(f"scorer {name!r} is broken: {plugin.error}", hint="remove the plug-in or repair it")
    return cast("Kind", plugin.load())


def build(chosen: Chosen, means: Means | None = None) -> Scorer:
    """The scorer with its options. Raises NotFound, InvalidRequest that names a wrong option, EngineUnavailable."""
    made = kind(chosen.name)
    try:
        options = msgspec.convert(chosen.options, made.options)
    except msgspec.ValidationError as error:
        known = ", ".join(made.options.__struct_fields__) or "none"
        raise InvalidRequest(
            f"scorer {chosen.name!r}: {error}", param="scorers", hint=f"its options: {known}"
        ) from error
    return made(options, means or NoMeans())


__all__ = [
    "Answer", "Chosen", "Item", "Kind", "Likelihood", "Mean", "Means", "Metric", "Need", "NoMeans", "Options", "Score",
    "Scorer", "build", "kind", "names",
]  # fmt: skip
