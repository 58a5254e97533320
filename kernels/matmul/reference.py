"""Matrix product of two contiguous matrices, either of them read as its transpose, with optional accumulation or bias.

With ``bfloat16`` both operands are rounded to that format first: a float32 without its lower 16 bits, so 8 bits of
precision and the same range. Products of two such numbers are exact in float32, and so are added.
"""

from __future__ import annotations

from minitl.kernels.launch import Array, array_module
from minitl.kernels.matmul.arguments import check_product, check_sums


def matmul(
    a: Array,
    b: Array,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    out: Array | None = None,
    accumulate: bool = False,
    bias: Array | None = None,
    bfloat16: bool = False,
) -> Array:
    """Return ``op(a) @ op(b) + bias``, where ``op`` is the transpose if asked.

    Args:
        a: (M, K), or (K, M) with ``transpose_a``.
        b: (K, N), or (N, K) with ``transpose_b``.
        out: (M, N), written in place and returned, if given.
        accumulate: add to ``out`` instead of overwriting it; not together with a bias.
        bias: (N,), added to every row, or None.
        bfloat16: round float32 operands to bfloat16, ties to even; sums are float32.
    """
    check_product(a, b, transpose_a, transpose_b, out, accumulate, bias, bfloat16)
    xp = array_module(a)
    if bfloat16:
        a, b = _rounded(a), _rounded(b)
    left = a.T if transpose_a else a
    right = b.T if transpose_b else b
    if out is None:
        out = xp.matmul(left, right)
    elif accumulate:
        out += xp.matmul(left, right)
    else:
        xp.matmul(left, right, out=out)
    if bias is not None:
        out += bias
    return out


def _rounded(x: Array) -> Array:
    """Return float32 ``x`` rounded to bfloat16, ties to even, as float32; NaN stays NaN."""
    xp = array_module(x)
    bits = x.view(xp.uint32)
    # half of the last place that is kept, less one where that place is even: then a tie carries into odd places only
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) & xp.uint32(0xFFFF0000)
    return xp.where(xp.isnan(x), x, rounded.view(xp.float32))


def column_sums(x: Array) -> Array:
    """Return the sum over rows of ``x`` (N, D), (D,): the gradient of a bias."""
    check_sums(x)
    return x.sum(axis=0)
