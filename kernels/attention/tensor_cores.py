"""Self-attention of bfloat16 and float16 on tensor cores; see tensor_cores.cu. Its arguments are trusted."""

from __future__ import annotations

from typing import Any

import numpy as np

from minitl.kernels.attention.layout import Layout
from minitl.kernels.launch import Array, array_module
from minitl.kernels.program import EIGHT, SHORT_TYPES, Program, dropout_options, most_shared_memory

WIDTHS = (32, 64, 128)  # of a head; those between are filled up with zeros
WARP_SIZE, ROWS_OF_A_WARP = 32, 16
FORWARD_WARPS, BACKWARD_WARPS, LONG_WARPS = (1, 2, 4), (2, 4, 8), 4
MOST_ON_CHIP = {32: 128, 64: 128, 128: 64}  # by width: tokens of a sentence that one block differentiates
PROGRAM = Program(
    __file__,
    [
        *(
            f"attention_forward<{kind},{width},{warps}>"
            for kind in SHORT_TYPES.values()
            for width in WIDTHS
            for warps in FORWARD_WARPS
        ),
        *(
            f"attention_backward<{SHORT_TYPES['bfloat16']},{width},{warps}>"
            for width in WIDTHS
            for warps in BACKWARD_WARPS
            if warps * ROWS_OF_A_WARP <= MOST_ON_CHIP[width]
        ),
        *(
            f"{name}<{SHORT_TYPES['bfloat16']},{width},{LONG_WARPS}>"
            for name in ("attention_grad_queries", "attention_grad_keys")
            for width in WIDTHS
        ),
    ],
    file="tensor_cores.cu",
    architecture=80,
)


def check_width(width: int) -> None:
    """Raise a ValueError unless heads of this width can be computed."""
    if width % EIGHT or not 0 < width <= WIDTHS[-1]:
        raise ValueError(
            f"attention in 16 bits takes heads whose width is a multiple of {EIGHT} up to {WIDTHS[-1]}, not {width}; "
            "compute in float32"
        )


def forward(
    q: Array, k: Array, v: Array, layout: Layout, *, heads: int, scale: float, dropout: float, seed: int, call: int
) -> tuple[Array, Array]:
    xp = array_module(q)
    context, log_sum_exp = xp.empty_like(q), xp.empty((heads, len(q)), np.float32)
    options = _options(q, layout, heads, scale, dropout, seed, call)
    warps = next((warps for warps in FORWARD_WARPS if warps * ROWS_OF_A_WARP >= layout.longest), FORWARD_WARPS[-1])
    _launch("attention_forward", layout, heads, warps, 3, (q, k, v, context, log_sum_exp, *options))
    return context, log_sum_exp


def backward(
    grad_context: Array,
    q: Array,
    k: Array,
    v: Array,
    log_sum_exp: Array,
    layout: Layout,
    *,
    heads: int,
    scale: float,
    dropout: float,
    seed: int,
    call: int,
) -> tuple[Array, Array, Array]:
    xp = array_module(q)
    grad_q, grad_k, grad_v = xp.empty_like(q), xp.empty_like(k), xp.empty_like(v)
    options = _options(q, layout, heads, scale, dropout, seed, call)
    arrays = grad_context, q, k, v, log_sum_exp
    width = _template_width(q, heads)
    warps = next((warps for warps in BACKWARD_WARPS if warps * ROWS_OF_A_WARP >= layout.longest), 0)
    fits = warps and warps * ROWS_OF_A_WARP <= MOST_ON_CHIP[width]
    if fits and _shared_bytes(warps, width, 4, pairs=2) <= most_shared_memory(q):
        arguments = *arrays, grad_q, grad_k, grad_v, *options
        _launch("attention_backward", layout, heads, warps, 4, arguments, pairs=2)
        return grad_q, grad_k, grad_v
    means = xp.empty_like(log_sum_exp)
    _launch("attention_grad_queries", layout, heads, LONG_WARPS, 2, (*arrays, means, grad_q, *options))
    _launch("attention_grad_keys", layout, heads, LONG_WARPS, 4, (*arrays, means, grad_k, grad_v, *options))
    return grad_q, grad_k, grad_v


def _options(
    q: Array, layout: Layout, heads: int, scale: float, dropout: float, seed: int, call: int
) -> tuple[Any, ...]:
    sizes = np.int64(len(q)), np.int32(heads), np.int32(q.shape[1] // heads)
    return layout.offsets, layout.squares, *sizes, np.float32(scale), *dropout_options(dropout, seed, call, q)


def _launch(
    name: str, layout: Layout, heads: int, warps: int, tiles: int, arguments: tuple[Any, ...], pairs: int = 0
) -> None:
    """Launch for all sentences; ``tiles`` of rows of a head, and ``pairs`` of query and key, lie in shared memory."""
    q = arguments[1]
    sentences = len(layout.offsets) - 1
    if not sentences or not len(q):
        return
    width = _template_width(q, heads)
    grid = -(-layout.longest // (warps * ROWS_OF_A_WARP)), heads, sentences
    shared = _shared_bytes(warps, width, tiles, pairs)
    PROGRAM.launch(f"{name}<,{width},{warps}>", q, grid, warps * WARP_SIZE, *arguments, shared_memory=shared)


def _template_width(q: Array, heads: int) -> int:
    return next(width for width in WIDTHS if width >= q.shape[1] // heads)


def _shared_bytes(warps: int, width: int, tiles: int, pairs: int = 0) -> int:
    rows = warps * ROWS_OF_A_WARP
    return 2 * (tiles * rows * (width + EIGHT) + pairs * rows * (rows + EIGHT))
