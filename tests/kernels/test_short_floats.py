"""CUDA kernels on bfloat16 and float16: what the reference computes from the same numbers, rounded once or twice.

Sums and statistics are float32, so a result is wrong by its rounding to 16 bits: relative 2^-8 (bfloat16) or 2^-11
(float16) at most. Where the test has no access to a number that the kernel rounds on the way, it allows a second one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulator import Placed, needs_device

from minitl.kernels import cudasim
from minitl.kernels.cross_entropy import cuda as cross_entropy_kernel
from minitl.kernels.cross_entropy import reference as cross_entropy_reference
from minitl.kernels.dropout import cuda as dropout_kernel
from minitl.kernels.embedding import cuda as embedding_kernel
from minitl.kernels.embedding import reference as embedding_reference
from minitl.kernels.gelu import cuda as gelu_kernel
from minitl.kernels.gelu import reference as gelu_reference
from minitl.kernels.launch import bfloat16
from minitl.kernels.layer_norm import cuda as layer_norm_kernel
from minitl.kernels.layer_norm import reference as layer_norm_reference
from minitl.kernels.matmul import cuda as matmul_kernel
from minitl.kernels.softmax import cuda as softmax_kernel
from minitl.kernels.softmax import reference as softmax_reference

pytestmark = needs_device

dropout, embedding, gelu = Placed(dropout_kernel), Placed(embedding_kernel), Placed(gelu_kernel)
layer_norm, matmul = Placed(layer_norm_kernel), Placed(matmul_kernel)
softmax, cross_entropy = Placed(softmax_kernel), Placed(cross_entropy_kernel)
BFLOAT16 = bfloat16()
SHORT = [BFLOAT16, np.dtype(np.float16)]
# and a hundredth of it for the float32 before
ROUNDING = {"bfloat16": 1.01 * 2.0**-8, "float16": 1.01 * 2.0**-11}
ORDERS: list[dict[str, Any]] = [{"order": "descending"}, {"order": "random", "seed": 5}, {"order": "warps"}]
# Elements that eight neighbours' kernels take, one to four times a lane; and lengths that only the others do.
COLUMNS = [8, 40, 256, 264, 768, 1024, 7, 33, 1032]


def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32).astype(dtype)


def check(found: np.ndarray, wanted: Any, roundings: float = 2) -> None:
    """So many roundings of the largest element at most."""
    wanted = np.asarray(wanted, np.float64)
    allowed = roundings * ROUNDING[found.dtype.name] if found.dtype.itemsize == 2 else 1e-5
    np.testing.assert_allclose(
        found.astype(np.float64), wanted, rtol=0, atol=allowed * np.abs(wanted).max(initial=1e-30)
    )


def double(*arrays: np.ndarray) -> list[np.ndarray]:
    return [array.astype(np.float64) for array in arrays]


def same_bits(found: Any, wanted: Any) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one.view(np.uint8), other.view(np.uint8))


@pytest.mark.parametrize("dtype", SHORT, ids=str)
@pytest.mark.parametrize("rows", [None, np.array([7, 2, 9])])
def test_dropout(dtype: np.dtype, rows: np.ndarray | None) -> None:
    x = normal(3, 13, dtype=dtype)
    options = {"probability": 0.3, "seed": 5, "call": 6, "rows": rows}
    wanted = dropout.forward(x.astype(np.float32), **options).astype(dtype)
    y = dropout.forward(x, **options)
    assert y.dtype == dtype
    assert (y == 0).any()
    same_bits([y], [wanted])


# -- layer norm --------------------------------------------------------------------------------------------------------

DROPOUT = {"dropout": 0.3, "seed": 2**40 + 3, "call": 2**33 + 5}


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("dtype", SHORT, ids=str)
@pytest.mark.parametrize(
    "options", [{}, DROPOUT, {**DROPOUT, "rows": np.arange(19, 0, -1)}], ids=["", "dropout", "rows"]
)
def test_layer_norm(dtype: np.dtype, columns: int, options: dict[str, Any]) -> None:
    x, residual = normal(19, columns, dtype=dtype), normal(19, columns, dtype=dtype, seed=1)
    weight, bias = 1 + 0.1 * normal(columns), normal(columns)
    y, total, mean, rstd = layer_norm.forward(x, residual, weight, bias, eps=1e-5, **options)
    wide = layer_norm_reference.forward(*double(x, residual, weight, bias), eps=1e-5, **options)
    assert y.dtype == total.dtype == dtype
    assert mean.dtype == rstd.dtype == np.float32
    check(total, wide[1], 1)
    wanted = layer_norm_reference.forward(total.astype(np.float64), None, *double(weight, bias), eps=1e-5)
    check(y, wanted[0], 1)
    check(mean, wanted[2])
    check(rstd, wanted[3])
    if dtype == BFLOAT16:
        grad_y = normal(19, columns, dtype=dtype, seed=2)
        found = layer_norm.backward(grad_y, total, weight, mean, rstd, **options)
        wanted = layer_norm_reference.backward(*double(grad_y, total, weight, mean, rstd), **options)
        for gradient, right, kind in zip(found, wanted, [dtype, dtype, np.float32, np.float32], strict=True):
            assert gradient.dtype == kind
            check(gradient, right, 1)


@pytest.mark.parametrize("columns", [256, 7])
@pytest.mark.parametrize("dtype", [BFLOAT16, np.dtype(np.float32)], ids=str)
def test_layer_norm_writes_into_slots(dtype: np.dtype, columns: int) -> None:
    """What is there before is added to, or of no consequence."""
    x, weight, bias = normal(70, columns, dtype=dtype), 1 + 0.1 * normal(columns), normal(columns)
    _, total, mean, rstd = layer_norm.forward(x, None, weight, bias, eps=1e-5)
    arguments = normal(70, columns, dtype=dtype, seed=2), total, weight, mean, rstd
    grad_x, grad_residual, *wanted = layer_norm.backward(*arguments, **DROPOUT)
    for accumulate in (False, True):
        slots = [np.full(columns, 3, np.float32) for _ in range(2)]
        where = dict(zip(("grad_weight", "grad_bias"), slots, strict=True))
        found = layer_norm.backward_into(*arguments, **where, accumulate=accumulate, **DROPOUT, rows=None)
        same_bits(found, (grad_x, grad_residual))
        same_bits(slots, [gradient + np.float32(3 * accumulate) for gradient in wanted])


# -- GELU --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [8, 264, 7, 33])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("dtype", SHORT, ids=str)
def test_gelu(dtype: np.dtype, approximate: str, columns: int) -> None:
    x, bias = 3 * normal(70, columns), normal(columns)
    x = x.astype(dtype)
    x[:3] = np.array([-12, 12, 0])[:, None]  # the tails, and zero
    y = gelu.forward(x, bias, approximate=approximate)
    assert y.dtype == dtype
    check(y, gelu_reference.forward(*double(x, bias), approximate=approximate), 1)
    plain = gelu.forward(x, None, approximate=approximate)
    check(plain, gelu_reference.forward(x.astype(np.float64), None, approximate=approximate), 1)
    assert not plain[2].any()
    if dtype == BFLOAT16:
        grad_y = normal(70, columns, dtype=dtype, seed=1)
        grad_x, grad_bias = gelu.backward(grad_y, x, bias, approximate=approximate)
        wanted = gelu_reference.backward(*double(grad_y, x, bias), approximate=approximate)
        assert grad_x.dtype == dtype
        assert grad_bias is not None
        assert grad_bias.dtype == np.float32
        check(grad_x, wanted[0], 1)
        # summed before rounding; the normal distribution itself is good to 16 bits
        np.testing.assert_allclose(grad_bias, wanted[1], rtol=0, atol=2e-5 * np.abs(wanted[1]).max())
        for accumulate in (False, True):
            slot = np.full(columns, 3, np.float32)
            options = {"approximate": approximate, "grad_bias": slot, "accumulate": accumulate}
            same_bits([gelu.backward_into(grad_y, x, bias, **options), slot], [grad_x, grad_bias + 3 * accumulate])


# -- softmax and cross-entropy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", SHORT, ids=str)
@pytest.mark.parametrize("options", [{}, DROPOUT], ids=["", "dropout"])
@pytest.mark.parametrize("masked", [False, True])
def test_softmax(dtype: np.dtype, masked: bool, options: dict[str, Any]) -> None:
    x = 3 * normal(19, 37)
    x, mask = x.astype(dtype), None
    if masked:
        mask = np.random.default_rng(1).random((19, 37)) < 0.6
        mask[4] = False
    y, probabilities = softmax.forward(x, mask, scale=0.7, **options)
    assert y.dtype == probabilities.dtype == dtype
    wanted = softmax_reference.forward(x.astype(np.float64), mask, scale=0.7, **options)
    check(y, wanted[0], 1)
    check(probabilities, wanted[1], 1)
    if dtype == BFLOAT16:
        grad_y = normal(19, 37, dtype=dtype, seed=2)
        grad_x = softmax.backward(grad_y, probabilities, scale=0.7, **options)
        check(grad_x, softmax_reference.backward(*double(grad_y, probabilities), scale=0.7, **options), 1)


@pytest.mark.parametrize("dtype", SHORT, ids=str)
@pytest.mark.parametrize(("weighted", "smoothing"), [(False, 0.0), (True, 0.1)])
def test_cross_entropy(dtype: np.dtype, weighted: bool, smoothing: float) -> None:
    """Loss and statistics are float32, from logits as they are."""
    logits, random = normal(70, 9, dtype=dtype), np.random.default_rng(1)
    labels = np.where(random.random(70) < 0.7, random.integers(0, 9, 70), -100)
    weights = random.uniform(0.5, 2, 9).astype(np.float32) if weighted else None
    options = {"ignore_index": -100, "label_smoothing": smoothing}
    found = cross_entropy.forward(logits, labels, weights, **options)
    exact_weights = None if weights is None else weights.astype(np.float64)
    wanted = cross_entropy_reference.forward(logits.astype(np.float64), labels, exact_weights, **options)
    for one, right in zip(found, wanted, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, right, rtol=1e-6)
    if dtype == BFLOAT16:
        grad_loss = np.array(3, np.float32)
        gradient = cross_entropy.backward(grad_loss, logits, labels, weights, *found[1:], **options)
        exact = double(grad_loss, logits), exact_weights, double(*found[1:])
        right = cross_entropy_reference.backward(*exact[0], labels, exact[1], *exact[2], **options)
        assert gradient.dtype == dtype
        check(gradient, right, 1)
        assert not gradient[labels == -100].any()


# -- embedding ---------------------------------------------------------------------------------------------------------


def test_embedding_is_rounded_once() -> None:
    tables = [normal(rows, 33, seed=rows) for rows in (50, 2, 40)]
    indices = [np.random.default_rng(1).integers(0, len(table), 70) for table in tables]
    y = embedding.forward_rounded(tables, indices, dtype=BFLOAT16)
    same_bits([y], [embedding_reference.forward(tables, indices).astype(BFLOAT16)])


@pytest.mark.parametrize("dtype", [BFLOAT16, np.dtype(np.float32)], ids=str)
@pytest.mark.parametrize(
    ("rows", "tokens"), [(2, 300), (8, 70), (9, 70), (50, 300), (9, 3000)], ids=lambda value: str(value)
)
@pytest.mark.parametrize("padding", [None, 1])
def test_embedding_adds_repeated_rows(dtype: np.dtype, rows: int, tokens: int, padding: int | None) -> None:
    """Tables of few rows and of more; more tokens of a row than a block lists at once (1,024)."""
    index = np.random.default_rng(tokens).integers(0, rows, tokens)
    if tokens == 3000:
        index[5:2500] = 4
    grad_y, start = normal(tokens, 37, dtype=dtype), normal(rows, 37, seed=1)
    found, wanted = start.copy(), start.astype(np.float64)
    embedding.backward(grad_y, index, out=found, padding_index=padding)
    embedding_reference.backward(grad_y.astype(np.float64), index, out=wanted, padding_index=padding)
    check(found, wanted)
    if padding is not None:
        same_bits([found[padding]], [start[padding]])


# -- products and sums -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [8, 264, 7, 33])
@pytest.mark.parametrize("rows", [0, 1, 70])
def test_column_sums(rows: int, columns: int) -> None:
    x = normal(rows, columns, dtype=BFLOAT16)
    sums = matmul.column_sums(x)
    assert sums.dtype == np.float32
    check(sums, x.astype(np.float64).sum(axis=0))
    for accumulate in (False, True):
        slot = np.full(columns, 3, np.float32)
        matmul.column_sums_into(x, slot, accumulate)
        same_bits([slot], [sums + np.float32(3 * accumulate)])


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("dtype", SHORT, ids=str)
def test_products(dtype: np.dtype, transpose_a: bool, transpose_b: bool) -> None:
    """Sums in float32; the result of 16 bits, or of float32 where ``out`` is."""
    a, b, bias = normal(19, 37, dtype=dtype), normal(37, 21, dtype=dtype, seed=1), normal(21, dtype=dtype, seed=2)
    wanted = a.astype(np.float64) @ b.astype(np.float64)
    a, b = (np.ascontiguousarray(x.T) if turn else x for x, turn in ((a, transpose_a), (b, transpose_b)))
    options = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    y = matmul.matmul(a, b, bias=bias, **options)
    assert y.dtype == dtype
    check(y, wanted + bias.astype(np.float64))  # cuBLASLt may add the bias to a product that it has rounded
    out = np.full((19, 21), 3, np.float32)
    assert matmul.matmul(a, b, out=out, accumulate=True, **options) is out
    check(out, wanted + 3)


# -- no bit depends on the order of threads ----------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_no_bit_depends_on_the_order_of_threads(order: dict[str, Any]) -> None:
    def results() -> list[np.ndarray]:
        x, weight, bias = normal(40, 264, dtype=BFLOAT16), 1 + 0.1 * normal(264), normal(264, seed=1)
        grad = normal(40, 264, dtype=BFLOAT16, seed=2)
        normalised = layer_norm.forward(x, grad, weight, bias, eps=1e-5, **DROPOUT)
        table = normal(9, 264)
        embedding.backward(grad, np.arange(40) % 5, out=table)
        few = normal(2, 264)
        embedding.backward(grad, np.arange(40) % 2, out=few)
        return [
            *normalised,
            *layer_norm.backward(grad, *normalised[1:2], weight, *normalised[2:], **DROPOUT),
            gelu.forward(x, bias, approximate="none"),
            *(array for array in gelu.backward(grad, x, bias, approximate="none") if array is not None),
            matmul.column_sums(x),
            table,
            few,
        ]

    wanted = results()
    with cudasim.schedule(**order):
        same_bits(results(), wanted)
