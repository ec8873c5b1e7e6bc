"""Next-token training: TRL's supervised trainer with a loss that computes what is needed and no more.

TRL projects every position, padding and prompts included, onto the vocabulary on a CPU, and computes the entropy and
the accuracy of each at every step. The loss here projects the positions that count. It is the same sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dockyard.ops._libraries import library
from dockyard.ops.training.examples import IGNORED

ROWS = 1024
"""Positions that are projected onto the vocabulary at once; a backward pass computes further ones again."""
_SCALED = (
    "final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling",
    "output_router_logits",
)  # fmt: skip
"""Fields of configurations of models whose logits are more than hidden states times a matrix."""


def trainer_class() -> Any:
    """TRL's trainer with that loss. A class made on demand, since what it derives from is heavy to import."""
    torch, trl = library("torch"), library("trl")

    class Supervised(trl.SFTTrainer):  # type: ignore[misc,name-defined]  # imported when used
        """Falls back to TRL's own loss for models that do more with their logits, and where outputs are wanted."""

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            if return_outputs or not plain_head(model):
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            total, count = summed(model, inputs)
            wanted = count if num_items_in_batch is None else num_items_in_batch
            return total / torch.as_tensor(wanted).clamp(min=1)

    return Supervised


def plain_head(model: Any) -> bool:
    """Whether a model's logits are its hidden states times its head, and nothing else."""
    config = inner(model).config.get_text_config()
    return all(getattr(config, name, None) in (None, False) for name in _SCALED)


def inner(model: Any) -> Any:
    """The model inside of an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def summed(model: Any, inputs: Any) -> tuple[Any, Any]:
    """Sum of the cross-entropies over positions whose label counts, and how many those are."""
    hidden, targets = at_labels(model, inputs)
    head = inner(model).get_output_embeddings()
    return cross_entropy(head, hidden, targets), (inputs["labels"][:, 1:] != IGNORED).sum()


def at_labels(model: Any, inputs: Any) -> tuple[Any, Any]:
    """Hidden states ``[positions, width]`` before each token that is to be learnt, and those tokens ``[positions]``."""
    kwargs = {name: inputs[name] for name in ("input_ids", "attention_mask", "position_ids") if name in inputs}
    states = inner(model).base_model(**kwargs, use_cache=False).last_hidden_state
    targets = inputs["labels"][:, 1:]
    mask = targets != IGNORED
    return states[:, :-1][mask], targets[mask]


def cross_entropy(head: Any, hidden: Any, targets: Any) -> Any:
    """The sum of cross-entropies in float32, ``ROWS`` positions at a time."""
    torch = library("torch")

    def part(states: Any, labels: Any) -> Any:
        return torch.nn.functional.cross_entropy(head(states).float(), labels, reduction="sum")

    if hidden.shape[0] <= ROWS:
        return part(hidden, targets)
    parts = []
    for at in range(0, hidden.shape[0], ROWS):
        rows = hidden[at : at + ROWS], targets[at : at + ROWS]
        again = torch.is_grad_enabled()
        parts.append(torch.utils.checkpoint.checkpoint(part, *rows, use_reentrant=False) if again else part(*rows))
    return torch.stack(parts).sum()


def losses(model: Any, examples: Sequence[dict[str, list[int]]]) -> list[tuple[float, int]]:
    """For each example the sum of its cross-entropies in nats and how many tokens counted; nothing is learnt."""
    torch = library("torch")
    found, was = [], model.training
    model.eval()
    with torch.no_grad():
        for example in examples:
            total, count = summed(model, {name: torch.tensor([ids]) for name, ids in example.items()})
            found.append((float(total), int(count)))
    model.train(was)
    return found


def mean_loss(found: Sequence[tuple[float, int]]) -> float:
    """Nats a token over all examples."""
    return sum(total for total, _ in found) / max(1, sum(count for _, count in found))
