"""Matrix product by the BLAS that NumPy calls, for processors that have no tile: each thread takes a chunk of rows.

The BLAS itself is held to one thread (``kernels/threads.py``). The chunks have one size, so that no bit of a result
depends on the number of threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from minitl.kernels.launch import Array
from minitl.kernels.matmul.reference import _rounded
from minitl.kernels.threads import pool

CHUNK = 128  # rows of the result
FEW_PRODUCTS = 2**20  # multiplications that are not worth a second thread


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_count(), thread_name_prefix="minitl-matmul")


def _count() -> int:
    import numba

    return int(numba.get_num_threads())


def matmul(
    a: Array,
    b: Array,
    transpose_a: bool,
    transpose_b: bool,
    out: Array | None,
    accumulate: bool,
    bias: Array | None,
    bfloat16: bool,
) -> Array:
    """Return the product; the arguments are those of ``reference.matmul``, already checked."""
    if bfloat16:
        a, b = _rounded(a), _rounded(b)
    left, right = a.T if transpose_a else a, b.T if transpose_b else b
    c = np.empty((left.shape[0], right.shape[1]), a.dtype) if out is None else out

    def chunk(start: int) -> None:
        part = slice(start, start + CHUNK)
        if accumulate:
            c[part] += left[part] @ right
        else:
            np.matmul(left[part], right, out=c[part])
        if bias is not None:
            c[part] += bias

    starts = range(0, c.shape[0], CHUNK)
    with pool.turn():
        if len(starts) < 2 or left.shape[1] * c.size < FEW_PRODUCTS:
            for start in starts:
                chunk(start)
        else:
            list(_threads().map(chunk, starts))  # list: an exception in a thread is raised here
    return c
