"""Structured pruning: layers by block influence (ShortGPT, Men et al., 2403.03853), neurons of the MLPs, and groups of
attention heads that share keys and values. The configuration follows, so that every engine reads the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dockyard.errors import UnsupportedFormat
from dockyard.ops._libraries import library
from dockyard.ops._prune_zeros import OnLayer, forward


def drop_layers(model: Any, runs: Sequence[Sequence[int]], count: int, seen: OnLayer) -> list[int]:
    """Take out the ``count`` layers that turn their input least: influence is 1 − cos(input, output), mean over
    tokens. Returns their old numbers."""
    torch = library("torch")
    layers = _layers(model)
    turned = [0.0] * len(layers)

    def hook(place: int) -> Any:
        def look(_module: Any, given: Any, kept: Any, out: Any) -> None:
            before = given[0] if given else kept["hidden_states"]
            after = out[0] if isinstance(out, tuple) else out
            cosine = torch.nn.functional.cosine_similarity(before.float(), after.float(), dim=-1)
            turned[place] += float((1 - cosine).mean())

        return look

    handles = [layer.register_forward_hook(hook(place), with_kwargs=True) for place, layer in enumerate(layers)]
    try:
        forward(model, runs)
    finally:
        for handle in handles:
            handle.remove()
    gone = sorted(sorted(range(len(layers)), key=lambda place: turned[place])[:count])
    kept = [layer for place, layer in enumerate(layers) if place not in gone]
    for place, layer in enumerate(kept):
        layer.self_attn.layer_idx = place
    model.model.layers = torch.nn.ModuleList(kept)
    config = model.config
    config.num_hidden_layers = len(kept)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        config.layer_types = [kind for place, kind in enumerate(kinds) if place not in gone]
    seen(len(gone), len(gone))
    return gone


def narrow(model: Any, runs: Sequence[Sequence[int]], width: int, seen: OnLayer) -> None:
    """Keep ``width`` neurons of each MLP: those whose activation times what goes out from them is the largest."""
    torch = library("torch")
    layers = _layers(model)
    strength = _strengths(model, runs, [layer.mlp.down_proj for layer in layers])
    for place, layer in enumerate(layers):
        mlp = layer.mlp
        kept = torch.topk(strength[place], width).indices.sort().values
        for name in ("gate_proj", "up_proj"):
            _keep(mlp, name, rows=kept)
        _keep(mlp, "down_proj", columns=kept)
        mlp.intermediate_size = width
        seen(place + 1, len(layers))
    model.config.intermediate_size = width


def drop_groups(model: Any, runs: Sequence[Sequence[int]], count: int, seen: OnLayer) -> None:
    """Take ``count`` key-value heads out of each layer with the query heads that use them: those whose outputs, times
    what goes out from them, are the smallest. All layers lose as many, as configurations want it."""
    torch = library("torch")
    config, layers = model.config, _layers(model)
    heads, pairs = config.num_attention_heads, config.num_key_value_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    each = heads // pairs
    strength = _strengths(model, runs, [layer.self_attn.o_proj for layer in layers])
    for place, layer in enumerate(layers):
        by_group = strength[place].reshape(pairs, each * size).sum(1)
        kept = torch.topk(by_group, pairs - count).indices.sort().values
        wide = (kept[:, None] * each * size + torch.arange(each * size)).reshape(-1)
        thin = (kept[:, None] * size + torch.arange(size)).reshape(-1)
        attention = layer.self_attn
        _keep(attention, "q_proj", rows=wide)
        _keep(attention, "k_proj", rows=thin)
        _keep(attention, "v_proj", rows=thin)
        _keep(attention, "o_proj", columns=wide)
        seen(place + 1, len(layers))
    config.head_dim = size
    config.num_key_value_heads = pairs - count
    config.num_attention_heads = (pairs - count) * each


def _strengths(model: Any, runs: Sequence[Sequence[int]], matrices: Sequence[Any]) -> list[Any]:
    """For each matrix and each of its inputs: mean absolute value times the norm of the column that it meets."""
    torch = library("torch")
    sums = [torch.zeros(matrix.in_features) for matrix in matrices]

    def hook(place: int) -> Any:
        def look(_module: Any, given: Any) -> None:
            sums[place] += given[0].detach().float().reshape(-1, sums[place].numel()).abs().sum(0)

        return look

    handles = [matrix.register_forward_pre_hook(hook(place)) for place, matrix in enumerate(matrices)]
    try:
        forward(model, runs)
    finally:
        for handle in handles:
            handle.remove()
    return [total * matrix.weight.detach().float().norm(dim=0) for total, matrix in zip(sums, matrices, strict=True)]


def _keep(parent: Any, name: str, *, rows: Any = None, columns: Any = None) -> None:
    """Replace a linear layer by one with some of its rows or columns."""
    torch = library("torch")
    old = getattr(parent, name)
    weight = old.weight.detach()
    weight = weight[rows] if rows is not None else weight[:, columns]
    made = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=old.bias is not None, dtype=weight.dtype)
    made.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
    if old.bias is not None:
        bias = old.bias.detach()
        made.bias = torch.nn.Parameter((bias[rows] if rows is not None else bias).clone(), requires_grad=False)
    setattr(parent, name, made)


def _layers(model: Any) -> Any:
    found = getattr(getattr(model, "model", None), "layers", None)
    if found is None:
        raise UnsupportedFormat(f"the layers of a {model.config.model_type} are not known here")
    return found
