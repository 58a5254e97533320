"""The checks that every implementation of the matrix product begins with."""

from __future__ import annotations

import numpy as np

from minitl.kernels.launch import Array, check_activations, check_floats, check_shapes, is_short, wide


def check_product(
    a: Array,
    b: Array,
    transpose_a: bool,
    transpose_b: bool,
    out: Array | None,
    accumulate: bool,
    bias: Array | None,
    bfloat16: bool,
) -> tuple[int, int, int]:
    """Return (M, N, K), or raise for arguments that do not fit; see ``reference.matmul``.

    Operands of 16 bits give a result of their own dtype, or float32 into an ``out`` that is; the bias has the result's.
    """
    if is_short(a.dtype):
        check_activations(a=a, b=b)
        results = {name: array for name, array in (("out", out), ("bias", bias)) if array is not None}
        if out is not None and out.dtype == wide(a.dtype):
            check_floats(**results)  # a sum that is not rounded
        elif results:
            check_activations(a=a, **results)
    else:
        check_floats(a=a, b=b, out=out, bias=bias)
    check_shapes(
        a=(a, "K M" if transpose_a else "M K"),
        b=(b, "N K" if transpose_b else "K N"),
        out=(out, "M N"),
        bias=(bias, "N"),
    )
    if accumulate and out is None:
        raise ValueError("accumulate adds to out, and out is None")
    if accumulate and bias is not None:
        raise ValueError("accumulate and bias do not combine: add the bias to out beforehand")
    if bfloat16 and a.dtype != np.float32:
        raise TypeError(f"bfloat16 rounds float32 operands; these are {a.dtype}")
    k, m = a.shape if transpose_a else a.shape[::-1]
    return m, b.shape[0 if transpose_b else 1], k


def check_sums(x: Array) -> None:
    """Raise unless ``x`` is a plain (N, D) array of floats."""
    check_activations(x=x)
    check_shapes(x=(x, "N D"))
