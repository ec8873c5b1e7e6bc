"""A base in 4 bits (NF4), whose rounding errors make up for each other on the text that is to be learnt.

A number that is rounded shifts the sums that it takes part in. Going through the columns of a matrix, what each one's
rounding shifts is taken into the columns that are still to be rounded, by how inputs go together: Frantar et al.,
"GPTQ" (2022), here with NF4's sixteen numbers as the grid. Scales stay those of plain NF4, doubly quantised.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

from dockyard.ops._libraries import library

DAMPING = 0.01
"""Share of the mean second moment that is added to each input's own, so that the matrix of them can be inverted."""
TOGETHER = 128
"""Columns after which the rest of a matrix is brought up to date."""


BLOCK = 64
"""Weights of a row that share a scale. Where rows are no multiple of it, bitsandbytes 0.50 reads scales from the wrong
places on CPUs, and says nothing: a third of such a matrix is noise. So those stay as they are."""
LOOKED_AT = 2048
"""Tokens of examples that are looked at."""


class _Enough(Exception):
    """Ends a forward pass behind the block that was looked at."""


def to_four_bits(model: Any, compute: str, texts: Sequence[Sequence[int]] = ()) -> Any:
    """Replace a model's linear layers by NF4 ones with doubly quantised scales, in place; its head is left out, and so
    are layers whose inputs are no multiple of ``BLOCK``.

    ``compute`` is the dtype that they are multiplied in; ``texts`` are token ids on which rounding errors are to make
    up for each other, block after block. Without any each number goes to the nearest.
    """
    torch = library("torch")
    head = model.get_output_embeddings()
    for block in _blocks(model):
        found = [
            (module, part, child)
            for module in block.modules()
            for part, child in module.named_children()
            if type(child) is torch.nn.Linear and child is not head and child.in_features % BLOCK == 0
        ]
        moments = _moments(model, block, [child for *_, child in found], texts) if found and texts else []
        for place, (module, part, child) in enumerate(found):
            packed = _packed(child, compute)
            if moments:
                round_together(packed.weight, child.weight.data, moments[place])
            setattr(module, part, packed)
    model.is_loaded_in_4bit = True
    return model


def texts_to_look_at(examples: Sequence[Mapping[str, list[int]]], seed: int) -> list[list[int]]:
    """Token ids of some examples, drawn by the seed: so many that all their tokens are about ``LOOKED_AT``."""
    found: list[list[int]] = []
    for place in random.Random(seed).sample(range(len(examples)), len(examples)):  # noqa: S311  no secret
        if sum(map(len, found)) >= LOOKED_AT:
            break
        found.append(examples[place]["input_ids"])
    return found


def round_together(packed: Any, weight: Any, moments: Any) -> None:
    """Choose the four-bit numbers of ``packed``, which stands for ``weight`` [rows, inputs], anew, in place.

    ``moments`` [inputs, inputs] are sums of products of inputs. Where nothing was seen, or the outputs would be no
    nearer to those of ``weight``, the numbers stay as they are.
    """
    import bitsandbytes.functional as kernels

    torch = library("torch")
    state, diagonal = packed.quant_state, moments.diagonal().mean()
    if not 0 < float(diagonal) < float("inf"):
        return
    absmax = state.absmax
    if state.nested:
        absmax = kernels.dequantize_blockwise(absmax, state.state2) + state.offset
    scale = absmax.float().repeat_interleave(state.blocksize)[: weight.numel()].view(weight.shape)
    damped = moments + DAMPING * diagonal * torch.eye(len(moments), device=moments.device)
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    codes = _rounded(weight.float(), scale, state.code.float(), upper)
    flat = codes.flatten().to(torch.uint8)
    data = ((flat[0::2] << 4) | flat[1::2]).view(packed.data.shape)
    errors = [kernels.dequantize_4bit(each, state).float() - weight.float() for each in (packed.data, data)]
    before, after = (float(((error @ moments) * error).sum()) for error in errors)
    if after < before:
        packed.data.copy_(data)


def _rounded(weight: Any, scale: Any, grid: Any, upper: Any) -> Any:
    """Places in the grid for each weight, column after column; ``upper`` is Cholesky's factor of the inverse."""
    torch = library("torch")
    between = (grid[1:] + grid[:-1]) / 2
    left, width = weight.clone(), weight.shape[1]
    codes = torch.empty_like(weight, dtype=torch.long)
    for start in range(0, width, TOGETHER):
        end = min(start + TOGETHER, width)
        errors = torch.empty_like(left[:, start:end])
        for column in range(start, end):
            value = left[:, column]
            codes[:, column] = torch.bucketize(value / scale[:, column], between)
            error = (value - grid[codes[:, column]] * scale[:, column]) / upper[column, column]
            left[:, column:end] -= torch.outer(error, upper[column, column:end])
            errors[:, column - start] = error
        left[:, end:] -= errors @ upper[start:end, end:]
    return codes


def _blocks(model: Any) -> list[Any]:
    """The transformer's blocks in their order, and last the model itself, for what is outside of them."""
    lists = [module for module in model.modules() if type(module).__name__ == "ModuleList"]
    longest = max(lists, key=len, default=())
    return [*longest, model]


def _moments(model: Any, block: Any, layers: Sequence[Any], texts: Sequence[Sequence[int]]) -> list[Any]:
    """Sums of products of the inputs of each layer on the texts."""
    torch = library("torch")
    found: dict[int, Any] = {}

    def look(layer: Any, inputs: tuple[Any, ...]) -> None:
        rows = inputs[0].detach().float().reshape(-1, inputs[0].shape[-1])
        found[id(layer)] = found[id(layer)] + rows.T @ rows if id(layer) in found else rows.T @ rows

    def stop(*_: Any) -> None:
        raise _Enough

    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    hooks.append(block.register_forward_hook(stop))
    try:
        with torch.no_grad():
            for ids in texts:
                with contextlib.suppress(_Enough):
                    model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    nothing = (layer.weight.new_zeros(layer.in_features, layer.in_features, dtype=torch.float32) for layer in layers)
    return [found.get(id(layer), zeros) for layer, zeros in zip(layers, nothing, strict=True)]


def _packed(layer: Any, compute: str) -> Any:
    """The layer in NF4.

    On CPUs with AVX512-BF16 bitsandbytes repacks the weights of a layer at its first evaluation and leaves them so;
    training then goes through a kernel without a backward pass, and gradients are silently wrong. So that way is closed
    on each layer.
    """
    torch, bitsandbytes = library("torch"), library("bitsandbytes")
    packed = bitsandbytes.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=getattr(torch, compute),
        compress_statistics=True,
        quant_type="nf4",
    )
    packed.weight = bitsandbytes.nn.Params4bit(
        layer.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    if layer.bias is not None:
        packed.bias = torch.nn.Parameter(layer.bias.data, requires_grad=False)
    packed = packed.to(layer.weight.device)
    packed.support_avx512bf16_for_cpu = False
    return packed
