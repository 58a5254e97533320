"""Self-attention in CUDA: plain, see attention.cu; of 16 bits on tensor cores, see tensor_cores.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from minitl.kernels.attention import tensor_cores
from minitl.kernels.attention.layout import Layout
from minitl.kernels.launch import (
    Array,
    array_module,
    check_activations,
    check_dropout,
    check_heads,
    check_offsets,
    check_shapes,
    contiguous,
    is_short,
    on_gpu,
    wide,
)
from minitl.kernels.program import SHORT_TYPES, Program, dropout_options, per_type

WARPS, WARP_SIZE = 4, 32  # as in attention.cu
TENSOR_CORES = 80  # compute capability 8.0, from which on they are used; before it float16 is computed like float32
PROGRAM = Program(
    __file__,
    [
        *per_type("attention_forward", "attention_grad_queries", "attention_grad_keys"),
        f"attention_forward<{SHORT_TYPES['float16']}>",
    ],
)


def forward(
    q: Array,
    k: Array,
    v: Array,
    cu_seqlens: np.ndarray | Layout,
    *,
    heads: int,
    scale: float,
    dropout: float = 0.0,
    seed: int = 0,
    call: int = 0,
) -> tuple[Array, Array]:
    check_activations(q=q, k=k, v=v)
    check_shapes(q=(q, "T D"), k=(k, "T D"), v=(v, "T D"))
    check_heads(heads, columns=q.shape[1])
    layout = _layout(cu_seqlens, q)
    check_dropout(dropout, seed=seed, call=call)
    if is_short(q.dtype) and _has_tensor_cores(q):
        tensor_cores.check_width(q.shape[1] // heads)
        return tensor_cores.forward((q, k, v), layout, heads=heads, scale=scale, dropout=dropout, seed=seed, call=call)
    xp = array_module(q)
    context = xp.empty_like(q)
    log_sum_exp = xp.empty((heads, q.shape[0]), wide(q.dtype))
    options = _arguments(layout, q, heads), wide(q.dtype).type(scale), dropout_options(dropout, seed, call, q)
    _launch("attention_forward", q, heads, (q, k, v, context, log_sum_exp), *options)
    return context, log_sum_exp


def backward(
    grad_context: Array,
    q: Array,
    k: Array,
    v: Array,
    log_sum_exp: Array,
    cu_seqlens: np.ndarray | Layout,
    *,
    heads: int,
    scale: float,
    dropout: float = 0.0,
    seed: int = 0,
    call: int = 0,
) -> tuple[Array, Array, Array]:
    check_activations({"log_sum_exp": log_sum_exp}, grad_context=grad_context, q=q, k=k, v=v)
    check_shapes(grad_context=(grad_context, "T D"), q=(q, "T D"), k=(k, "T D"), v=(v, "T D"))
    check_heads(heads, columns=q.shape[1])
    check_shapes(H=heads, T=q.shape[0], log_sum_exp=(log_sum_exp, "H T"))
    layout = _layout(cu_seqlens, q)
    check_dropout(dropout, seed=seed, call=call)
    if is_short(q.dtype):
        tensor_cores.check_width(q.shape[1] // heads)
        numbers: dict[str, Any] = {"heads": heads, "scale": scale, "dropout": dropout, "seed": seed, "call": call}
        return tensor_cores.backward(grad_context, None, (q, k, v), log_sum_exp, layout, **numbers)
    xp = array_module(q)
    grad_q, grad_k, grad_v = xp.empty_like(q), xp.empty_like(k), xp.empty_like(v)
    per_query = xp.empty((3, heads, q.shape[0]), q.dtype)  # totals, means, inners
    arrays = grad_context, q, k, v, log_sum_exp, *per_query
    options = _arguments(layout, q, heads), q.dtype.type(scale), dropout_options(dropout, seed, call, q)
    _launch("attention_grad_queries", q, heads, (*arrays, grad_q), *options)
    _launch("attention_grad_keys", q, heads, (*arrays, grad_k, grad_v), *options)
    return grad_q, grad_k, grad_v


def forward_joined(
    joined: Array, layout: Layout, *, heads: int, scale: float, dropout: float, seed: int, call: int
) -> tuple[Array, Array]:
    """Return what ``forward`` does for q, k and v of 16 bits that lie side by side in one (T, 3 D)."""
    check_activations(joined=joined)
    check_shapes(joined=(joined, "T D"), sentences=(layout.sentences, "T"))
    check_heads(heads, columns=joined.shape[1] // 3)
    check_dropout(dropout, seed=seed, call=call)
    options: dict[str, Any] = {"heads": heads, "scale": scale, "dropout": dropout, "seed": seed, "call": call}
    if not _has_tensor_cores(joined):
        q, k, v = (contiguous(part) for part in array_module(joined).split(joined, 3, axis=1))
        return forward(q, k, v, layout, **options)
    tensor_cores.check_width(joined.shape[1] // 3 // heads)
    return tensor_cores.forward((joined, None, None), layout, **options)


def backward_joined(
    grad_context: Array,
    context: Array,
    joined: Array,
    log_sum_exp: Array,
    layout: Layout,
    *,
    heads: int,
    scale: float,
    dropout: float,
    seed: int,
    call: int,
) -> Array:
    """Return the gradient of ``joined``, (T, 3 D).

    ``context`` and ``log_sum_exp`` are what ``forward_joined`` has returned; layout and options are its own, trusted.
    """
    check_activations({"log_sum_exp": log_sum_exp}, grad_context=grad_context, context=context, joined=joined)
    return tensor_cores.backward(
        grad_context,
        context,
        (joined, None, None),
        log_sum_exp,
        layout,
        heads=heads,
        scale=scale,
        dropout=dropout,
        seed=seed,
        call=call,
    )[0]


def _has_tensor_cores(like: Array) -> bool:
    """Tell whether tensor_cores.cu runs where this array is: on newer GPUs, and on the simulator."""
    return not on_gpu(like) or int(array_module(like).cuda.Device().compute_capability) >= TENSOR_CORES


def _layout(cu_seqlens: np.ndarray | Layout, q: Array) -> Layout:
    """Check offsets and move them to the device; a Layout, which is there already, is trusted."""
    if isinstance(cu_seqlens, Layout):
        check_shapes(q=(q, "T D"), sentences=(cu_seqlens.sentences, "T"))
        return cu_seqlens
    check_offsets(cu_seqlens, rows=q.shape[0])
    return Layout.of(cu_seqlens, array_module(q))


def _arguments(layout: Layout, q: Array, heads: int) -> tuple[Any, ...]:
    """Return the parameters that make up the Layout of attention.cu."""
    numbers = np.int64(q.shape[0]), np.int32(heads), np.int32(q.shape[1] // heads)
    return layout.offsets, layout.sentences, layout.squares, *numbers


def _launch(name: str, like: Array, heads: int, arrays: Any, layout: Any, scale: Any, dropout: Any) -> None:
    tasks = like.shape[0] * heads
    if tasks:
        PROGRAM.launch(name, like, -(-tasks // WARPS), WARPS * WARP_SIZE, *arrays, *layout, scale, *dropout)
