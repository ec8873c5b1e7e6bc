"""Distillation losses: a student's next-token distributions pulled towards a teacher's.

Logits (Hinton et al., 2015): share · T² · KL(teacher_T ‖ student_T) + (1 - share) · cross-entropy, over answers as the
data have them. On-policy (Agarwal et al., 2024, "GKD"): the student writes its own answers, and learns on those from
KL(student ‖ teacher), so that it is corrected where it really goes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dockyard.ops._libraries import library
from dockyard.ops.training.examples import IGNORED
from dockyard.ops.training.sft import ROWS, at_labels, inner, trainer_class


class Mixture(msgspec.Struct, frozen=True, kw_only=True):
    """``share`` of the divergence in the loss, softened by ``temperature``; ``answer`` tokens on-policy, 0: not so."""

    share: float
    temperature: float
    answer: int = 0


def distiller_class(teacher: Any, mixture: Mixture, pad: int, end: int | None) -> Any:
    """A trainer class whose loss compares with ``teacher``. ``pad`` and ``end`` are token ids."""
    torch = library("torch")

    class Distiller(trainer_class()):  # type: ignore[misc]  # made on demand
        """Supervised training with a teacher beside it."""

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            if return_outputs:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            if mixture.answer and model.training:
                inputs, num_items_in_batch = own_answers(model, inputs, mixture, pad, end), None
            states, targets = at_labels(model, inputs)
            with torch.no_grad():
                beside, _ = at_labels(teacher, inputs)
            heads = inner(model).get_output_embeddings(), inner(teacher).get_output_embeddings()
            total = mixed(heads, (states, beside), targets, mixture)
            wanted = len(targets) if num_items_in_batch is None else num_items_in_batch
            return total / torch.as_tensor(wanted).clamp(min=1)

    return Distiller


def mixed(heads: tuple[Any, Any], states: tuple[Any, Any], targets: Any, mixture: Mixture) -> Any:
    """The loss summed over positions; ``heads`` and ``states`` are the student's and the teacher's. Logits of further
    positions than ``ROWS`` are computed again in the backward pass."""
    torch = library("torch")
    functional, heat = torch.nn.functional, mixture.temperature
    backward = mixture.answer > 0

    def part(mine: Any, theirs: Any, labels: Any) -> Any:
        logits = heads[0](mine).float()
        with torch.no_grad():
            wanted = functional.log_softmax(heads[1](theirs).float() / heat, dim=-1)
        said = functional.log_softmax(logits / heat, dim=-1)
        first, second = (wanted, said) if backward else (said, wanted)
        divergence = functional.kl_div(first, second, log_target=True, reduction="sum") * heat**2
        if backward:
            return divergence
        crossed = functional.cross_entropy(logits, labels, reduction="sum")
        return mixture.share * divergence + (1 - mixture.share) * crossed

    if len(targets) <= ROWS:
        return part(*states, targets)
    parts = [
        torch.utils.checkpoint.checkpoint(
            part,
            states[0][at : at + ROWS],
            states[1][at : at + ROWS],
            targets[at : at + ROWS],
            use_reentrant=False,
        )
        for at in range(0, len(targets), ROWS)
    ]
    return torch.stack(parts).sum()


def own_answers(model: Any, inputs: Any, mixture: Mixture, pad: int, end: int | None) -> dict[str, Any]:
    """The batch with the student's own answers in place of the data's: drawn at temperature 1 from its prompts."""
    torch = library("torch")
    prompts = []
    for ids, labels, mask in zip(inputs["input_ids"], inputs["labels"], inputs["attention_mask"], strict=True):
        first = int((labels != IGNORED).nonzero()[0])
        prompts.append(ids[:first][mask[:first].bool()])
    longest = max(len(prompt) for prompt in prompts)
    place = inputs["input_ids"].device
    asked = torch.full((len(prompts), longest), pad, device=place)
    seen = torch.zeros((len(prompts), longest), dtype=torch.long, device=place)
    for row, prompt in enumerate(prompts):
        asked[row, longest - len(prompt) :] = prompt
        seen[row, longest - len(prompt) :] = 1
    model.eval()
    with torch.no_grad():
        written = model.generate(
            input_ids=asked,
            attention_mask=seen,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=mixture.answer,
            pad_token_id=pad,
            eos_token_id=end,
        )
    model.train()
    answers = written[:, longest:]
    over = (answers == end).cumsum(1) - (answers == end).long() if end is not None else torch.zeros_like(answers)
    said = over == 0
    mask = torch.cat([seen, said.long()], dim=1)
    labels = torch.cat([torch.full_like(asked, IGNORED), answers.masked_fill(~said, IGNORED)], dim=1)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    return {"input_ids": written, "attention_mask": mask, "labels": labels, "position_ids": places}
