"""Several maps of one input: the values, gradients and buffers of as many operations ``linear``, one after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minitl import Tensor, ops, optim

SIZES = (3, 4, 2)  # outputs of each map of 5 inputs
Leaves = list[Tensor]


def leaves(**frozen: bool) -> tuple[Tensor, Leaves, Leaves]:
    """x (7, 5), the weights and the biases; those named do not require a gradient."""
    random = np.random.default_rng(0)

    def leaf(name: str, *shape: int) -> Tensor:
        return Tensor(random.standard_normal(shape), requires_grad=not frozen.get(name, False))

    weights = [leaf(f"weight{i}", size, 5) for i, size in enumerate(SIZES)]
    return leaf("x", 7, 5), weights, [leaf(f"bias{i}", size) for i, size in enumerate(SIZES)]


def one_by_one(x: Tensor, weights: Leaves, biases: Leaves) -> tuple[Tensor, ...]:
    return tuple(ops.linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True))


def results(maps: Any, used: tuple[int, ...], **frozen: bool) -> list[np.ndarray | None]:
    x, weights, biases = leaves(**frozen)
    ys = maps(x, weights, biases)
    total = sum((ys[i] * ys[i] * (i + 1)).sum() for i in used)
    assert isinstance(total, Tensor)
    total.backward()
    gradients = [None if leaf.grad is None else leaf.grad.numpy() for leaf in (x, *weights, *biases)]
    return [*(y.numpy() for y in ys), *gradients]


@pytest.mark.parametrize("used", [(0, 1, 2), (1,), (2, 0)])
@pytest.mark.parametrize(
    "frozen", [(), ("x",), ("weight1",), ("bias0", "bias2"), ("x", "weight0", "weight1", "weight2")]
)
def test_it_equals_one_by_one(used: tuple[int, ...], frozen: tuple[str, ...]) -> None:
    """Also where something needs no gradient. An output that nobody used sends zeros back to its weight and bias."""
    options = dict.fromkeys(frozen, True)
    for number, (many, single) in enumerate(
        zip(results(ops.linear_many, used, **options), results(one_by_one, used, **options), strict=True)
    ):
        if many is None:
            assert single is None
            continue
        wanted = np.zeros(many.shape) if single is None else single
        # sums of at most 7 * 4 terms of size 10 in another order, float64
        np.testing.assert_allclose(many, wanted, rtol=0, atol=1e-12, err_msg=str(number))


def test_weight_gradients_go_into_the_optimizers_buffer() -> None:
    """Written by the first use, added to by the second; what an earlier backward left there is forgotten."""
    wanted = leaves()
    found = leaves()
    optimizer = optim.SGD([*found[1], *found[2]], lr=0.1)
    arrays = [weight.grad for weight in found[1]]
    assert arrays == [None] * 3
    for _ in range(2):  # the second time over a buffer full of old gradients
        for maps, (x, weights, biases) in ((ops.linear_many, found), (one_by_one, wanted)):
            for leaf in (x, *weights, *biases):
                leaf.grad = None
            first, second = maps(x, weights, biases), maps(x * 2, weights, biases)
            sum(((y * y).sum() for y in (*first, *second)), start=Tensor(np.zeros(()))).backward()
        for one, other in zip((*found[1], *found[2]), (*wanted[1], *wanted[2]), strict=True):
            assert one.grad is not None
            assert other.grad is not None
            # gradients of size 100, sums of some 100 terms
            np.testing.assert_allclose(one.grad.numpy(), other.grad.numpy(), rtol=0, atol=1e-11)
    assert all(np.shares_memory(leaf.grad.numpy(), optimizer.buffer.gradients) for leaf in found[1])


def test_one_weight_for_two_maps() -> None:
    """Tied maps: both add to the one gradient, in a buffer or not."""
    for buffered in (False, True):
        x, (weight, *_), (bias, *_) = leaves()
        if buffered:
            optim.SGD([weight, bias], lr=0.1)
        y, z = ops.linear_many(x, [weight, weight], [bias, bias])
        (y * 3 + z).sum().backward()
        assert weight.grad is not None
        assert bias.grad is not None
        np.testing.assert_allclose(weight.grad.numpy(), np.tile(4 * x.numpy().sum(axis=0), (3, 1)), rtol=1e-13)
        np.testing.assert_allclose(bias.grad.numpy(), np.full(3, 4.0 * 7), rtol=1e-13)
