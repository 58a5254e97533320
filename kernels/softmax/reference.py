"""Scale, mask, softmax and dropout of rows, in one kernel.

    p_k = exp(scale * x_k - m) / sum_j exp(scale * x_j - m)     over the columns the mask keeps, m their maximum
    y   = dropout(p)

Subtracting the maximum changes nothing mathematically and keeps exp in range. A row whose mask keeps nothing has no
distribution: it gives zeros, with zero gradient (PyTorch gives NaN). A masked column is 0, and what arrives there in
backward is not looked at: neither can bring NaN into a row. A row of kept scores that are all -inf is NaN.
"""

from __future__ import annotations

from minitl.kernels.dropout import reference as dropout_kernel
from minitl.kernels.launch import Array, array_module, check_dropout, check_floats, check_masks, check_shapes


def forward(
    x: Array,
    mask: Array | None,
    *,
    scale: float,
    dropout: float = 0.0,
    seed: int = 0,
    call: int = 0,
    first: int = 0,
) -> tuple[Array, Array]:
    """Return ``(y, probabilities)``; without dropout they are the same array.

    Args:
        x: (N, C) scores.
        mask: (N, C) boolean, True where a column takes part, or None.
        scale: multiplies the scores.
        dropout, seed, call, first: probability and generator of the dropout; elements are numbered in C order from
            ``first``.
    """
    check_floats(x=x)
    check_masks(mask=mask)
    check_shapes(x=(x, "N C"), mask=(mask, "N C"))
    check_dropout(dropout, seed=seed, call=call, first=first)
    if x.shape[1] == 0:
        raise ValueError(f"softmax needs at least one column; the shape of x is {x.shape}")
    xp = array_module(x)
    scores = x * scale
    if mask is not None:
        scores = xp.where(mask, scores, -xp.inf)
    maximum = scores.max(axis=1, keepdims=True)
    if mask is not None:
        # A fully masked row has maximum -inf, and (-inf) - (-inf) is NaN: subtract 0 there, exp(-inf) is then 0.
        maximum = xp.where(mask.any(axis=1, keepdims=True), maximum, 0)
    exponentials = xp.exp(scores - maximum)
    total = exponentials.sum(axis=1, keepdims=True)
    probabilities = exponentials / xp.where(total == 0, 1, total)
    if mask is not None:
        probabilities = xp.where(mask, probabilities, 0)  # they are 0, but in a row with a NaN
    y = dropout_kernel.forward(probabilities, probability=dropout, seed=seed, call=call, first=first)
    return y, probabilities


def backward(
    grad_y: Array,
    probabilities: Array,
    *,
    scale: float,
    dropout: float = 0.0,
    seed: int = 0,
    call: int = 0,
    first: int = 0,
) -> Array:
    """Return ``grad_x = scale * p * (g - sum_k g_k p_k)`` with ``g`` the gradient of the probabilities."""
    check_floats(grad_y=grad_y, probabilities=probabilities)
    check_shapes(grad_y=(grad_y, "N C"), probabilities=(probabilities, "N C"))
    check_dropout(dropout, seed=seed, call=call, first=first)
    xp = array_module(grad_y)
    grad_p = dropout_kernel.backward(grad_y, probability=dropout, seed=seed, call=call, first=first)
    grad_p = xp.where(probabilities == 0, 0, grad_p)  # 0 * NaN would be NaN
    inner = (grad_p * probabilities).sum(axis=1, keepdims=True)
    return probabilities * (grad_p - inner) * scale
