"""Self-attention of 16 bits on tensor cores, against the reference in float64 on the same numbers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from simulator import Placed, needs_device
from test_short_floats import BFLOAT16, ORDERS, SHORT, normal, same_bits

from minitl.kernels import cudasim
from minitl.kernels.attention import cuda as cuda_kernel
from minitl.kernels.attention import reference, tensor_cores
from minitl.kernels.attention.layout import Layout

pytestmark = needs_device

cuda = Placed(cuda_kernel)

# Both sides of a fragment's 8 and 16 rows and of the 32, 64 and 128 that blocks have, in one batch or alone.
LENGTHS = [[1], [7, 8, 9], [16, 1, 17], [31, 33], [63, 2], [64], [65, 4], [128, 3], [129], [150, 16, 70]]
DROPOUT = {"dropout": 0.2, "seed": 2**40 + 3, "call": 2**33 + 5}


def sentences(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])


def arrays(lengths: list[int], heads: int, width: int, dtype: Any) -> list[np.ndarray]:
    """q, k, v and the gradient of the context."""
    return [normal(sum(lengths), heads * width, dtype=dtype, seed=seed) for seed in range(4)]


def check(found: np.ndarray, wanted: np.ndarray, dtype: np.dtype) -> None:
    """Weights, and the gradients of scores, are rounded before they are multiplied: an error of each term of a sum.

    A term is wrong by at most 2^-8 (2^-11) of itself, and so the sum by as much of the sum of its terms' sizes, some
    times the result's; measured: at most 2.4 roundings of the largest element, of three that are allowed. What is 0, as
    the gradients of a single token's scores are, is 0 to float32.
    """
    rounding = 2.0**-8 if dtype == BFLOAT16 else 2.0**-11
    error = np.abs(found.astype(np.float64) - wanted).max()
    allowed = 3 * rounding * np.abs(wanted).max() + 1e-6
    assert error <= allowed, f"wrong by {error / allowed:.2f} of what is allowed"


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("options", [{"dropout": 0.0, "seed": 0, "call": 0}, DROPOUT], ids=["", "dropout"])
@pytest.mark.parametrize(("heads", "width"), [(2, 32), (1, 64), (1, 40)])
def test_forward_and_backward(lengths: list[int], options: dict[str, Any], heads: int, width: int) -> None:
    q, k, v, grad_context = arrays(lengths, heads, width, BFLOAT16)
    offsets, kind = sentences(lengths), {"heads": heads, "scale": width**-0.5, **options}
    layout = Layout.of(offsets, np)
    joined = np.concatenate([q, k, v], axis=1)
    context, log_sum_exp = cuda.forward_joined(joined, layout, **kind)
    exact = [array.astype(np.float64) for array in (q, k, v)]
    wanted, wanted_lse = reference.forward(*exact, offsets, **kind)
    check(context, wanted, BFLOAT16)
    np.testing.assert_allclose(log_sum_exp, wanted_lse, rtol=0, atol=1e-4)
    same_bits(cuda.forward(q, k, v, layout, **kind), (context, log_sum_exp))  # three arrays instead of one

    gradients = reference.backward(grad_context.astype(np.float64), *exact, wanted_lse, offsets, **kind)
    on_chip = cuda.backward_joined(grad_context, context, joined, log_sum_exp, layout, **kind)
    in_tiles = cuda.backward(grad_context, q, k, v, log_sum_exp, layout, **kind)
    for number, gradient in enumerate(gradients):
        check(np.split(on_chip, 3, axis=1)[number], gradient, BFLOAT16)
        check(in_tiles[number], gradient, BFLOAT16)


@pytest.mark.parametrize("lengths", [[5, 20], [100]], ids=str)
def test_float16_predicts(lengths: list[int]) -> None:
    q, k, v, _ = arrays(lengths, 2, 32, np.float16)
    kind = {"heads": 2, "scale": 0.2}
    context, _ = cuda.forward(q, k, v, Layout.of(sentences(lengths), np), **kind)
    assert context.dtype == np.float16
    exact = [array.astype(np.float64) for array in (q, k, v)]
    check(context, reference.forward(*exact, sentences(lengths), **kind)[0], np.dtype(np.float16))


def test_wide_heads() -> None:
    """128 columns: sentences of up to 64 tokens are differentiated on chip, others in tiles."""
    for lengths in ([30, 34], [70]):
        q, k, v, grad_context = arrays(lengths, 1, 128, BFLOAT16)
        offsets, kind = sentences(lengths), {"heads": 1, "scale": 128**-0.5, "dropout": 0.0, "seed": 0, "call": 0}
        joined, layout = np.concatenate([q, k, v], axis=1), Layout.of(offsets, np)
        context, log_sum_exp = cuda.forward_joined(joined, layout, **kind)
        found = cuda.backward_joined(grad_context, context, joined, log_sum_exp, layout, **kind)
        exact = [array.astype(np.float64) for array in (q, k, v)]
        wanted, wanted_lse = reference.forward(*exact, offsets, **kind)
        check(context, wanted, BFLOAT16)
        gradients = reference.backward(grad_context.astype(np.float64), *exact, wanted_lse, offsets, **kind)
        check(found, np.concatenate(gradients, axis=1), BFLOAT16)


@pytest.mark.parametrize("lengths", [[12, 20], [13, 7]], ids=["four aligned neighbours", "none"])
def test_dropout_masks_are_those_of_the_reference(lengths: list[int]) -> None:
    """With equal scores, and for values unit vectors, the context shows which weights were kept: bit for bit."""
    tokens = sum(lengths)
    zeros, ones = np.zeros((tokens, 32), BFLOAT16), np.zeros((tokens, 32), BFLOAT16)
    offsets = sentences(lengths)
    for begin, end in itertools.pairwise(offsets):
        ones[np.arange(begin, end), np.arange(end - begin)] = 1
    kind = {"heads": 1, "scale": 1.0, "dropout": 0.4, "seed": 7, "call": 3}
    found, _ = cuda.forward(zeros, zeros, ones, Layout.of(offsets, np), **kind)
    wanted, _ = reference.forward(*(array.astype(np.float64) for array in (zeros, zeros, ones)), offsets, **kind)
    np.testing.assert_array_equal(found != 0, wanted != 0)
    assert 0.2 < (wanted[:, : min(lengths)] == 0).mean() < 0.6


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("lengths", [[17, 40], [140]], ids=str)
def test_no_bit_depends_on_the_order_of_threads(order: dict[str, Any], lengths: list[int]) -> None:
    def results() -> list[np.ndarray]:
        q, k, v, grad_context = arrays(lengths, 1, 32, BFLOAT16)
        layout, kind = Layout.of(sentences(lengths), np), {"heads": 1, "scale": 0.2, **DROPOUT}
        joined = np.concatenate([q, k, v], axis=1)
        context, log_sum_exp = cuda.forward_joined(joined, layout, **kind)
        gradient = cuda.backward_joined(grad_context, context, joined, log_sum_exp, layout, **kind)
        return [context, log_sum_exp, gradient]

    wanted = results()
    with cudasim.schedule(**order):
        same_bits(results(), wanted)


def test_empty_sentences_are_nothing() -> None:
    """A CUDA graph has room for more sentences than there are."""
    q, k, v, _ = arrays([20], 1, 32, BFLOAT16)
    joined, kind = np.concatenate([q, k, v], axis=1), {"heads": 1, "scale": 0.2, **DROPOUT}
    wanted = cuda.forward_joined(joined, Layout.of(sentences([20]), np), **kind)
    same_bits(cuda.forward_joined(joined, Layout.of(np.array([0, 20, 20, 20]), np), **kind), wanted)


@pytest.mark.parametrize("dtype", SHORT, ids=str)
@pytest.mark.parametrize("width", [12, 136])
def test_widths_that_cannot_be(dtype: np.dtype, width: int) -> None:
    q = normal(3, width, dtype=dtype)
    with pytest.raises(ValueError, match=f"multiple of 8 up to {tensor_cores.WIDTHS[-1]}, not {width}"):
        cuda.forward(q, q, q, Layout.of(np.array([0, 3]), np), heads=1, scale=1.0)
