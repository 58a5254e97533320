"""Self-attention of bfloat16 and float16 on tensor cores; see tensor_cores.cu. Its arguments are trusted."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from minitl.kernels.attention.layout import Layout
from minitl.kernels.launch import Array, array_module
from minitl.kernels.program import EIGHT, SHORT_TYPES, Program, dropout_options, most_shared_memory

#: q, k and v, or their gradients: three arrays (T, D), or one (T, 3 D) and None twice.
Inputs: TypeAlias = "tuple[Array, Array | None, Array | None]"

WIDTHS = (32, 64, 128)  # of a head; those between are filled up with zeros
WARP_SIZE, ROWS_OF_A_WARP = 32, 16
FORWARD_WARPS, BACKWARD_WARPS, LONG_WARPS = (1, 2, 4), (2, 4, 8), 4
MOST_ON_CHIP = {32: 128, 64: 128, 128: 64}  # by width: tokens of a sentence that one block differentiates


def _tile_bytes(warps: int, width: int) -> int:
    """Return the size of ``16 warps`` rows of a head in shared memory."""
    return 2 * warps * ROWS_OF_A_WARP * (_template_width(width) + EIGHT)


def _pair_bytes(warps: int) -> int:
    """Return the size of a number of 16 bits for each of ``16 warps`` queries and as many keys."""
    rows = warps * ROWS_OF_A_WARP
    return 2 * rows * (rows + EIGHT)


def _template_width(width: int) -> int:
    return next(template for template in WIDTHS if template >= width)


def _shared_bytes(name: str) -> int:
    """Return the most that a launch of ``name<T,WIDTH,WARPS>`` asks for."""
    kernel, _, arguments = name.rstrip(">").partition("<")
    width, warps = map(int, arguments.split(",")[1:])
    tile, pairs = _tile_bytes(warps, width), _pair_bytes(warps)
    return {
        "attention_forward": 5 * tile,  # 3 where all keys fit
        "attention_backward": 2 * tile + pairs + max(2 * tile, pairs),
        "attention_grad_queries": 2 * tile,
        "attention_grad_keys": 4 * tile,
    }[kernel]


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
    dynamic_shared_bytes=_shared_bytes,
)


def check_width(width: int) -> None:
    """Raise a ValueError unless heads of this width can be computed."""
    if width % EIGHT or not 0 < width <= WIDTHS[-1]:
        raise ValueError(
            f"attention in 16 bits takes heads whose width is a multiple of {EIGHT} up to {WIDTHS[-1]}, not {width}; "
            "compute in float32"
        )


def forward(
    inputs: Inputs, layout: Layout, *, heads: int, scale: float, dropout: float, seed: int, call: int
) -> tuple[Array, Array]:
    """Return context (T, D) and log_sum_exp (H, T), float32.

    Args:
        inputs: q, k and v, (T, D) each; or all three side by side in one (T, 3 D), and None twice.
        layout: of the sentences.
        heads, scale, dropout, seed, call: as in ``reference.forward``.
    """
    q, xp = inputs[0], array_module(inputs[0])
    columns = _columns(inputs)
    context, log_sum_exp = xp.empty((len(q), columns), q.dtype), xp.empty((heads, len(q)), np.float32)
    options = _options(q, columns, layout, heads, scale, dropout, seed, call)
    warps = next((warps for warps in FORWARD_WARPS if warps * ROWS_OF_A_WARP >= layout.longest), FORWARD_WARPS[-1])
    arguments = *inputs, context, log_sum_exp, *options
    one_turn = layout.longest <= warps * ROWS_OF_A_WARP
    shared = 3 * _tile_bytes(warps, columns // heads) if one_turn else None
    _launch("attention_forward", q, columns // heads, layout, heads, warps, arguments, shared)
    return context, log_sum_exp


def backward(
    grad_context: Array,
    context: Array | None,
    inputs: Inputs,
    log_sum_exp: Array,
    layout: Layout,
    *,
    heads: int,
    scale: float,
    dropout: float,
    seed: int,
    call: int,
) -> Any:
    """Return the gradients of q, k and v as ``inputs`` has them: three arrays, or one and None twice.

    With ``context``, which forward has returned, sentences that fit on chip take the faster of two ways.
    """
    q, xp = inputs[0], array_module(inputs[0])
    columns = _columns(inputs)
    width = columns // heads
    grads = xp.empty_like(q), *(None if array is None else xp.empty_like(array) for array in inputs[1:])
    options = _options(q, columns, layout, heads, scale, dropout, seed, call)
    arrays = grad_context, *inputs, log_sum_exp
    warps = next((warps for warps in BACKWARD_WARPS if warps * ROWS_OF_A_WARP >= layout.longest), 0)
    limit = most_shared_memory(q)
    fits = warps and warps * ROWS_OF_A_WARP <= MOST_ON_CHIP[_template_width(width)]
    if context is not None and fits and _shared_bytes(_instantiation("attention_backward", width, warps)) <= limit:
        arguments = grad_context, context, *inputs, log_sum_exp, *grads, *options
        _launch("attention_backward", q, width, layout, heads, warps, arguments)
    else:
        means = xp.empty_like(log_sum_exp)
        arguments = *arrays, means, grads[0], np.int64(grads[0].shape[1]), *options
        _launch("attention_grad_queries", q, width, layout, heads, LONG_WARPS, arguments)
        arguments = *arrays, means, *grads, *options
        _launch("attention_grad_keys", q, width, layout, heads, LONG_WARPS, arguments)
    return grads


def _columns(inputs: Inputs) -> int:
    return inputs[0].shape[1] // (3 if inputs[1] is None else 1)


def _options(
    q: Array, columns: int, layout: Layout, heads: int, scale: float, dropout: float, seed: int, call: int
) -> tuple[Any, ...]:
    sizes = np.int64(len(q)), np.int32(heads), np.int32(columns // heads)
    return layout.offsets, layout.squares, *sizes, np.float32(scale), *dropout_options(dropout, seed, call, q)


def _launch(
    name: str,
    like: Array,
    width: int,
    layout: Layout,
    heads: int,
    warps: int,
    arguments: tuple[Any, ...],
    shared: int | None = None,
) -> None:
    """Launch for all sentences, with so many bytes of shared memory, or the most that it may ask for."""
    sentences = len(layout.offsets) - 1
    if not sentences or not len(like):
        return
    grid = -(-layout.longest // (warps * ROWS_OF_A_WARP)), heads, sentences
    instantiation = _instantiation(name, width, warps)
    shared = _shared_bytes(instantiation) if shared is None else shared
    PROGRAM.launch(instantiation, like, grid, warps * WARP_SIZE, *arguments, shared_memory=shared)


def _instantiation(name: str, width: int, warps: int) -> str:
    return f"{name}<,{_template_width(width)},{warps}>"
