"""Unstructured pruning: magnitude, and Wanda (Sun et al., 2306.11695): |weight| times the norm of its input, compared
within each output row; both also with a fixed number of zeros in each run of weights (2:4, 4:8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dockyard.ops._libraries import library, threads

OnLayer = Callable[[int, int], None]


def zero(model: Any, runs: Sequence[Sequence[int]] | None, sparsity: float, pattern: str | None, seen: OnLayer) -> None:
    """Set weights of the layers' matrices to zero, in place. With ``runs`` (token ids) by Wanda, else by magnitude.

    Embeddings and output stay. ``seen`` hears the matrices done and their number.
    """
    torch = library("torch")
    matrices = linear_layers(model)
    norms = input_norms(model, matrices, runs) if runs is not None else {}
    with torch.no_grad():
        for done, (name, module) in enumerate(matrices.items()):
            score = module.weight.abs()
            if name in norms:
                score = score * norms[name]
            if pattern is not None:
                mask = _by_pattern(score, *map(int, pattern.split(":")))
            elif runs is not None:
                mask = _lowest(score, int(score.shape[1] * sparsity))
            else:
                mask = _lowest(score.reshape(1, -1), int(score.numel() * sparsity)).reshape(score.shape)
            module.weight[mask] = 0
            seen(done + 1, len(matrices))


def linear_layers(model: Any) -> dict[str, Any]:
    """The matrices of the transformer's layers by module name."""
    linear = library("torch").nn.Linear
    return {name: each for name, each in model.named_modules() if isinstance(each, linear) and ".layers." in name}


def input_norms(model: Any, matrices: dict[str, Any], runs: Sequence[Sequence[int]]) -> dict[str, Any]:
    """For each matrix the Euclidean norm of each of its inputs over all tokens."""
    torch = library("torch")
    sums = {name: torch.zeros(module.in_features) for name, module in matrices.items()}

    def hook(name: str) -> Any:
        def look(_module: Any, given: Any, _out: Any) -> None:
            sums[name] += given[0].detach().float().reshape(-1, sums[name].numel()).pow(2).sum(0)

        return look

    handles = [module.register_forward_hook(hook(name)) for name, module in matrices.items()]
    try:
        forward(model, runs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: values.sqrt() for name, values in sums.items()}


def forward(model: Any, runs: Sequence[Sequence[int]]) -> None:
    """Compute the layers on the text, for hooks to see; the words that would come next are not."""
    torch = library("torch")
    with torch.inference_mode(), threads(model):
        for run in runs:
            model.model(input_ids=torch.tensor([list(run)]), use_cache=False)


def _lowest(score: Any, count: int) -> Any:
    torch = library("torch")
    mask = torch.zeros_like(score, dtype=torch.bool)
    if count:
        mask.scatter_(1, score.topk(count, dim=1, largest=False).indices, True)
    return mask


def _by_pattern(score: Any, zeros: int, run: int) -> Any:
    rows, columns = score.shape
    whole = columns // run * run
    torch = library("torch")
    mask = torch.zeros_like(score, dtype=torch.bool)
    if whole:
        blocks = score[:, :whole].reshape(-1, run)
        mask[:, :whole] = _lowest(blocks, zeros).reshape(rows, whole)
    return mask
