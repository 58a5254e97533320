"""Matrix product of two contiguous matrices, either of them read as its transpose, with optional accumulation."""

from __future__ import annotations

from minitl.kernels.launch import Array, array_module, check_floats, check_shapes


def matmul(
    a: Array,
    b: Array,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """Return ``op(a) @ op(b)``, where ``op`` is the transpose if asked.

    Args:
        a: (M, K), or (K, M) with ``transpose_a``.
        b: (K, N), or (N, K) with ``transpose_b``.
        out: (M, N), written in place and returned, if given.
        accumulate: add to ``out`` instead of overwriting it.
    """
    check_floats(a=a, b=b, out=out)
    check_shapes(
        a=(a, "K M" if transpose_a else "M K"),
        b=(b, "N K" if transpose_b else "K N"),
        out=(out, "M N"),
    )
    if accumulate and out is None:
        raise ValueError("accumulate adds to out, and out is None")
    xp = array_module(a)
    left = a.T if transpose_a else a
    right = b.T if transpose_b else b
    if out is None:
        return xp.matmul(left, right)
    if accumulate:
        out += xp.matmul(left, right)
    else:
        xp.matmul(left, right, out=out)
    return out
