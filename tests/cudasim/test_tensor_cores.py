"""``ptx.cuh`` in the simulator, or on a GPU: fragments, ldmatrix and a whole matrix product against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cudasim_files import on_device
from simulator import needs_device, on_the_simulator

pytestmark = needs_device
ORDERS = ("ascending", "descending", "random", "warps")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("transpose", [False, True])
def test_ldmatrix(transpose: bool, order: Any) -> None:
    x = np.arange(256, dtype=np.uint16).reshape(4, 8, 8)
    registers = np.zeros((32, 4), np.uint32)
    kernel = on_device("pieces.cu").kernel(f"load_matrices<{'true' if transpose else 'false'}>")
    kernel((1,), (32,), (x, registers, np.int32(0)), order=order)
    matrices = x.swapaxes(1, 2) if transpose else x
    # lane 4 row + pair holds two neighbours of that row
    pairs = matrices.reshape(4, 8, 4, 2).astype(np.uint32)
    wanted = (pairs[..., 0] | pairs[..., 1] << 16).reshape(4, 32).T
    np.testing.assert_array_equal(registers, wanted)


def operands(kind: str, rows: int, depth: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Small integers, exact in every type and every sum; then the order of additions does not matter."""
    generator = np.random.default_rng(depth)
    a, b = generator.integers(-8, 9, (rows, depth)), generator.integers(-8, 9, (depth, columns))
    if kind == "__half":
        return a.astype(np.float16), b.astype(np.float16), a @ b
    bits = [(x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) for x in (a, b)]
    return bits[0], bits[1], a @ b


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["__half", "__nv_bfloat16"])
def test_matrix_product(kind: str, order: Any) -> None:
    kernel = on_device("pieces.cu").kernel(f"multiply<{kind}, 1>")
    for rows, depth, columns in ((16, 16, 16), (32, 80, 48)):
        a, b, wanted = operands(kind, rows, depth, columns)
        c = np.full((rows, columns), np.nan, np.float32)
        kernel((columns // 16, rows // 16), (32,), (a, b, c, np.int32(depth), np.int32(columns)), order=order)
        np.testing.assert_array_equal(c, wanted)


def test_a_product_of_fractions() -> None:
    generator = np.random.default_rng(0)
    a, b = (
        generator.standard_normal((16, 64)).astype(np.float16),
        generator.standard_normal((64, 16)).astype(np.float16),
    )
    c = np.zeros((16, 16), np.float32)
    on_device("pieces.cu").kernel("multiply<__half, 1>")((1, 1), (32,), (a, b, c, np.int32(64), np.int32(16)))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    # products of halves are exact in float; 64 additions, each rounds by half an eps of at most the sum of sizes
    bound = 64 * np.finfo(np.float32).eps / 2 * (np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64))
    assert (np.abs(c - exact) <= bound).all()


@on_the_simulator
@pytest.mark.parametrize("kind", ["__half", "__nv_bfloat16"])
def test_waiting_for_too_few_copies_is_seen(kind: str) -> None:
    """``multiply<..., 2>`` lets two groups be pending: the tile it reads has not landed."""
    a, b, _ = operands(kind, 16, 16, 16)
    c = np.zeros((16, 16), np.float32)
    on_device("pieces.cu").kernel(f"multiply<{kind}, 2>")((1, 1), (32,), (a, b, c, np.int32(16), np.int32(16)))
    assert np.isnan(c).all()
