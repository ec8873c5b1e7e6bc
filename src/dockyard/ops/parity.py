"""The parity gate: the same prompts through the model that was and the model that is made; no conversion skips it.

Three things are compared on a set of prompts: token ids (the tokenizer came along right), how far greedy answers agree,
and the Kullback-Leibler divergence of the next-token distributions along the reference's own greedy answer,
KL(reference ‖ candidate) in nats, averaged over positions. What differs beyond the limits is refused, with the prompt
and the place where they part; what passes has its figures attached.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from dockyard.artifact.lineage import attach
from dockyard.artifact.store import Store
from dockyard.errors import ParityMismatch
from dockyard.ops._speakers import Speaker
from dockyard.types import Descriptor

ARTIFACT_TYPE = "application/vnd.dockyard.parity.v1+json"

PROMPTS = (
    "The harbour was quiet that morning, and the first ship",
    "<|im_start|>user\nWhat is a shipping container?<|im_end|>\n<|im_start|>assistant\n",
    "In 2024, 12 345 containers (17.5 %) were lost  at sea;\n\n\tthe cost:  $3,000,000.",
    "def area(width: float, height: float) -> float:\n    return",
    'Élan, naïve, 東京, Ελλάδα — it\'s "quoted" & <b>bold</b> 🚢!',
    "Once upon a time there was a little crab who wanted to see the world. One day",
)
"""Words, a chat with special tokens, numbers and spaces, code, other scripts, and a plain story."""
POSITIONS = 16
TINY = 1e-6
"""The least that is taken for a sum of probabilities that are not told, whose digits end about there."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What may differ. ``kl`` is the mean over all positions in nats; ``prefix`` how many greedy tokens must agree on
    each prompt, where choices that the reference itself holds within ``tie`` nats count as one. ``agreement`` is the
    share of all positions at which the same word must come first. ``ignorance`` bounds ``kl`` by a share of the
    divergence of a model that knows nothing, which holds all words for equally likely: what a small model says is so
    near to that, that a bound in nats alone would let any answer pass."""

    kl: float = 0.01
    prefix: int = 8
    tie: float = 0.1
    agreement: float = 0.0
    ignorance: float = 1.0


EXACT = Limits()
"""Between formats of one precision: only rounding of arithmetic differs."""

ROUNDED = Limits(kl=0.03)
"""Where llama.cpp computes with quantised weights: it rounds what they meet to eight bits too, which alone makes 0.003
nats on these prompts with SmolLM2's Q4_1."""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt. ``tokens`` says whether the ids agree; ``prefix`` how many greedy tokens do, and ``alike`` at how
    many positions the same word comes first; ``kl`` is the mean, ``nothing`` that of a model that knows nothing."""

    prompt: str
    tokens: bool
    prefix: int = 0
    alike: int = 0
    kl: float = 0.0
    worst: float = 0.0
    nothing: float = 0.0
    parts: str = ""


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison found. ``refusal`` is empty where all is within the limits."""

    reference: str
    candidate: str
    limits: Limits
    prompts: tuple[Compared, ...]
    kl: float
    prefix: int
    positions: int
    agreement: float = 0.0
    nothing: float = 0.0
    refusal: str = ""


class Said(msgspec.Struct, frozen=True):
    """What the reference says of one prompt: ids, its greedy answer, and the distributions along it."""

    prompt: str
    ids: list[int]
    answer: list[int]
    logprobs: Any


def listen(reference: Speaker, prompts: Sequence[str] = PROMPTS, positions: int = POSITIONS) -> list[Said]:
    """Ask the reference first, so that it need not be in memory together with the candidate."""
    import numpy as np

    said = []
    for prompt in prompts:
        ids = reference.tokens(prompt)
        answer: list[int] = []
        rows = []
        for _ in range(positions):
            rows.append(reference.logprobs([*ids, *answer], 1)[0])
            answer.append(int(np.nanargmax(rows[-1])))
        said.append(Said(prompt, ids, answer, np.stack(rows)))
    return said


def compare(said: Sequence[Said], reference: str, candidate: Speaker, limits: Limits = EXACT) -> Parity:
    """Hold the candidate against what the reference said; prompts whose ids differ are not asked further."""
    found = [_compared(each, candidate, limits) for each in said]
    alike = [each for each in found if each.tokens]
    kl = sum(each.kl for each in alike) / len(alike) if alike else 0.0
    nothing = sum(each.nothing for each in alike) / len(alike) if alike else 0.0
    positions = len(said[0].answer) if said else 0
    agreement = sum(each.alike for each in alike) / max(1, positions * len(alike))
    return Parity(
        reference=reference,
        candidate=candidate.runtime,
        limits=limits,
        prompts=tuple(found),
        kl=kl,
        prefix=min((each.prefix for each in alike), default=0),
        positions=positions,
        agreement=agreement,
        nothing=nothing,
        refusal=_refusal(found, limits, kl, nothing, agreement),
    )


def require(found: Parity, what: str) -> None:
    """Raise ParityMismatch where they part, with the place."""
    if found.refusal:
        raise ParityMismatch(
            f"{what} does not answer as its original does: {found.refusal}",
            hint=f"compared in {found.reference} and {found.candidate}; nothing was stored",
        )


def record(store: Store, digest: str, found: Parity) -> Descriptor:
    """Attach the figures to the artifact."""
    return attach(
        store,
        digest,
        msgspec.json.format(msgspec.json.encode(found), indent=2),
        artifact_type=ARTIFACT_TYPE,
        annotations={"kl": f"{found.kl:.6f}", "greedy": f"{found.prefix} of {found.positions}"},
    )


def _compared(said: Said, candidate: Speaker, limits: Limits) -> Compared:
    import numpy as np

    ids = candidate.tokens(said.prompt)
    if ids != said.ids:
        place = next((at for at, pair in enumerate(zip(ids, said.ids, strict=False)) if pair[0] != pair[1]), None)
        at = min(len(ids), len(said.ids)) if place is None else place
        parts = f"token {at}: {said.ids[at : at + 4]} became {ids[at : at + 4]}"
        return Compared(prompt=said.prompt, tokens=False, parts=parts)
    theirs = candidate.logprobs([*ids, *said.answer[:-1]], len(said.answer)).astype(np.float64)
    ours = said.logprobs.astype(np.float64)
    width = min(ours.shape[1], theirs.shape[1])  # some runtimes pad the vocabulary
    ours, theirs = ours[:, :width], theirs[:, :width]
    each, nothing = _divergences(ours, theirs)
    chosen = np.nanargmax(theirs, axis=-1)
    agree = [
        bool(ours[place, said.answer[place]] - ours[place, chosen[place]] <= limits.tie)
        for place in range(len(said.answer))
    ]
    prefix = agree.index(False) if False in agree else len(agree)
    parts = ""
    if prefix < len(agree):
        parts = f"greedy token {prefix}: {said.answer[prefix]} became {int(chosen[prefix])}"
    return Compared(
        prompt=said.prompt, tokens=True, prefix=prefix, alike=sum(agree), kl=float(each.mean()),
        worst=float(each.max()), nothing=float(nothing.mean()), parts=parts,
    )  # fmt: skip


def _divergences(ours: Any, theirs: Any) -> tuple[Any, Any]:
    """For each row KL(ours ‖ theirs), and KL(ours ‖ all words alike). Words of which one side tells no probability
    count together as one: their sum is known."""
    import numpy as np

    told = ~(np.isnan(ours) | np.isnan(theirs))
    held, others = (np.where(told, np.exp(each), 0.0) for each in (ours, theirs))
    hidden = (~told).sum(-1)
    rest, left = (np.where(hidden > 0, np.maximum(1 - each.sum(-1), TINY), 1.0) for each in (held, others))
    rest_held = np.where(hidden > 0, rest, 0.0)
    with np.errstate(invalid="ignore"):
        each = np.where(held > 0, held * (ours - theirs), 0.0).sum(-1) + rest_held * np.log(rest / left)
        nothing = np.log(told.shape[-1]) + np.where(held > 0, held * ours, 0.0).sum(-1)
    return np.maximum(each, 0.0), nothing + rest_held * np.log(rest / np.maximum(hidden, 1))


def _refusal(found: Sequence[Compared], limits: Limits, kl: float, nothing: float, agreement: float) -> str:
    for each in found:
        if not each.tokens:
            return f"the tokens of {each.prompt[:40]!r} differ at {each.parts}"
    if not kl <= limits.kl:  # also where it is no number
        worst = max(found, key=lambda each: each.kl)
        return f"divergence of {kl:.4f} nats, and at most {limits.kl} may be; most on {worst.prompt[:40]!r}"
    if not kl <= limits.ignorance * nothing:
        return f"divergence of {kl:.4f} nats, where a model that knows nothing has {nothing:.4f}"
    if agreement < limits.agreement:
        return f"the same word comes first at {agreement:.0%} of the positions, and at {limits.agreement:.0%} it must"
    for each in found:
        if each.prefix < limits.prefix:
            return f"answers to {each.prompt[:40]!r} part at {each.parts}"
    return ""
