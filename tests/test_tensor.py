"""Tensor: what it holds, what goes in and out, conversions between numbers, and messages."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import minitl
from minitl import Tensor, ops


def leaf(values: Any, dtype: str = "float64") -> Tensor:
    return Tensor(np.array(values, dtype=dtype), requires_grad=True)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (1.5, "float32"),
        ([1.0, 2.0], "float32"),
        ([[1, 2], [3, 4]], "int64"),
        (True, "bool"),
        (np.float64(1), "float32"),
        (np.array(1.0), "float64"),
        (np.zeros(2, np.float32), "float32"),
        (np.zeros(2, np.uint8), "uint8"),
        (np.zeros(2, np.int32), "int32"),
        ([], "float32"),
    ],
)
def test_dtype(value: Any, dtype: str) -> None:
    tensor = Tensor(value)
    assert tensor.dtype == dtype
    assert tensor.shape == np.shape(value)
    assert tensor.device == "cpu"
    assert tensor.is_leaf
    assert not tensor.requires_grad
    assert tensor.grad is None


@pytest.mark.parametrize("value", [np.zeros(2, np.float16), "text", None, np.zeros(2, complex), [None]])
def test_other_dtypes_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="a Tensor holds float32, float64, integers or bool, not"):
        Tensor(value)


def test_a_tensor_of_a_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match=r"use tensor\.detach\(\)"):
        Tensor(Tensor(1.0))


def test_array_is_kept_without_a_copy() -> None:
    array = np.zeros(3, np.float32)
    assert Tensor(array).array is array


def test_sizes() -> None:
    tensor = Tensor(np.zeros((2, 3)))
    assert (tensor.ndim, tensor.size, len(tensor)) == (2, 6, 2)
    with pytest.raises(TypeError, match="no length"):
        len(Tensor(1.0))
    with pytest.raises(TypeError, match="no length"):
        iter(Tensor(1.0))


def test_iteration_carries_gradients() -> None:
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    first, second = x
    (first + 10 * second).sum().backward()
    assert x.grad.numpy().tolist() == [[1.0, 1.0], [10.0, 10.0]]


def test_repr() -> None:
    assert repr(Tensor([1.0, 2.0])) == "Tensor([1., 2.], dtype=float32)"
    assert repr(leaf(2.0)) == "Tensor(2., dtype=float64, requires_grad=True)"
    assert repr(leaf([2.0]) * 3) == "Tensor([6.], dtype=float64, made by Multiply)"
    y = leaf([2.0]) * 3
    y.sum().backward()
    assert "made by Multiply" in repr(y), "also when the graph is freed"


def test_numbers_out() -> None:
    assert Tensor([[2.5]]).item() == 2.5
    assert type(Tensor([2.5]).item()) is float
    assert type(Tensor([2]).item()) is int
    assert (float(Tensor(2.5)), int(Tensor(2.5)), bool(Tensor([0.0]))) == (2.5, 2, False)
    for wrong in (Tensor([1.0, 2.0]), Tensor(np.zeros((0,)))):
        with pytest.raises(ValueError, match="item\\(\\) needs one element"):
            wrong.item()
        with pytest.raises(ValueError, match="truth value of a tensor of shape"):
            bool(wrong)


def test_numpy_is_a_read_only_view() -> None:
    x = Tensor(np.zeros(3))
    view = x.numpy()
    assert np.shares_memory(view, x.array)
    for array in (view, np.asarray(x), x.__array__()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0
    assert x.array.flags.writeable


def test_array_protocol_copies_when_asked() -> None:
    x = Tensor(np.array([1.0, 2.0]))
    copied = np.array(x)
    copied[0] = 9.0
    assert x.numpy().tolist() == [1.0, 2.0]
    assert np.asarray(x, dtype=np.float32).dtype == np.float32
    assert np.asarray(x, dtype=np.float64).base is not None
    assert not np.asarray(x, dtype=np.float64).flags.writeable


def test_dlpack_shares_the_memory() -> None:
    x = Tensor(np.zeros(3, np.float32))
    other = np.from_dlpack(x)
    assert np.shares_memory(other, x.array)
    x.copy_([1.0, 2.0, 3.0])
    assert other.tolist() == [1.0, 2.0, 3.0]


# -- arithmetic with NumPy and numbers ---------------------------------------------------------------------------------


def test_ndarray_first_gives_a_tensor_with_a_gradient() -> None:
    """Without ``__array_ufunc__ = None`` NumPy would compute an ndarray, and the gradient would be lost silently."""
    a = np.array([2.0, 3.0])
    for call, wanted in [
        (lambda x: a * x, [2.0, 3.0]),
        (lambda x: a + x, [1.0, 1.0]),
        (lambda x: a - x, [-1.0, -1.0]),
        (lambda x: a / x, [-2.0, -3.0]),
        (lambda x: a @ x, [2.0, 3.0]),
        (lambda x: np.float64(2) * x, [2.0, 2.0]),
        (lambda x: np.float64(2) - x, [-1.0, -1.0]),
    ]:
        x = leaf([1.0, 1.0])
        y = call(x)
        assert type(y) is Tensor
        y.sum().backward()
        assert x.grad.numpy().tolist() == wanted
    assert type(a == leaf([1.0, 3.0])) is Tensor
    assert (a < leaf([3.0, 3.0])).numpy().tolist() == [True, False]
    with pytest.raises(TypeError):
        np.exp(leaf([1.0]))
    with pytest.raises(TypeError):
        a += leaf([1.0, 1.0])


@pytest.mark.parametrize(
    "call", [lambda x, y: x + y, lambda x, y: ops.matmul(x, y), lambda x, y: ops.linear(x[None], y[None]), ops.maximum]
)
def test_mixed_float_dtypes_are_refused(call: Any) -> None:
    x, y = leaf([1.0], "float32"), leaf([1.0], "float64")
    for pair in ((x, y), (y, x)):
        with pytest.raises(TypeError, match=r"float32 and float64 mixed; convert one with \.astype"):
            call(*pair)
    with pytest.raises(TypeError, match="mixed"):
        x + np.array([1.0])


def test_numbers_of_lesser_kinds_join_floats() -> None:
    x = leaf([1.0, 2.0], "float32")
    for other in (2, 2.0, True, np.int64(2), np.float64(2), np.array([1, 2]), Tensor([1, 2]), Tensor([True, False])):
        for result in (x * other, other * x, x + other, other - x):
            assert result.dtype == np.float32
            assert result.requires_grad
    y = Tensor([1, 2]) * x
    y.sum().backward()
    assert x.grad.numpy().tolist() == [1.0, 2.0]


def test_integers_among_themselves() -> None:
    x = Tensor([4, 6])
    assert (x + 1).dtype == np.int64
    assert (x * x).numpy().tolist() == [16, 36]
    assert (x + 0.5).dtype == np.float32
    assert not (x + 0.5).requires_grad


def test_only_floats_require_gradients() -> None:
    with pytest.raises(TypeError, match="only float tensors can require gradients, this one is int64"):
        Tensor([1, 2], requires_grad=True)
    x = Tensor([True])
    with pytest.raises(TypeError, match="bool"):
        x.requires_grad = True
    y = leaf([1.0]) * 2
    with pytest.raises(ValueError, match="use detach"):
        y.requires_grad = False


def test_equality_is_elementwise_and_hash_is_identity() -> None:
    x, y = Tensor([1.0, 2.0]), Tensor([1.0, 2.0])
    assert (x == y).numpy().all()
    assert {x: "x", y: "y"}[x] == "x"


# -- gradients, detach, moving -----------------------------------------------------------------------------------------


def test_grad_is_a_copy_of_what_is_assigned() -> None:
    x, given = leaf([1.0, 2.0]), Tensor(np.array([3.0, 4.0]))
    x.grad = given
    given.copy_([9.0, 9.0])
    assert x.grad.numpy().tolist() == [3.0, 4.0]
    x.grad = None
    assert x.grad is None


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros((2, 1)), np.zeros(2, np.float32)])
def test_a_gradient_that_does_not_fit_is_refused(wrong: np.ndarray) -> None:
    x = leaf([1.0, 2.0])
    with pytest.raises(ValueError, match=r"a gradient has its tensor's shape and dtype: expected \(2,\) float64"):
        x.grad = Tensor(wrong)
    assert x.grad is None


def test_detach_shares_memory_and_forgets() -> None:
    x = leaf([1.0, 2.0])
    d = x.detach()
    assert d.array is x.array
    assert not d.requires_grad
    y = x * d
    y.sum().backward()
    assert x.grad.numpy().tolist() == [1.0, 2.0]


def test_copy_checks_the_shape() -> None:
    x = Tensor(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"needs values of shape \(2, 3\), got \(3,\)"):
        x.copy_([1.0, 2.0, 3.0])
    assert x.copy_(np.ones((2, 3))) is x
    assert x.numpy().sum() == 6.0
    x.copy_(Tensor(np.full((2, 3), 2.0)))
    assert x.numpy().sum() == 12.0


def test_to_the_same_device_is_the_same_tensor() -> None:
    x = leaf([1.0])
    assert x.to("cpu") is x


def test_moving_keeps_a_leaf_a_leaf(strict_device: str) -> None:
    x = leaf([1.0, 2.0])
    moved = x.to(strict_device)
    assert moved.is_leaf
    assert moved.requires_grad
    computed = (x * 2).to(strict_device)
    assert computed.is_leaf
    assert not computed.requires_grad
    (moved * moved).sum().backward()
    assert moved.grad.numpy().tolist() == [2.0, 4.0]
    assert x.grad is None


def test_threads_compute_independently() -> None:
    """Many threads on shared leaves, each with a graph of its own, must not disturb one another."""
    weight = Tensor(np.arange(4.0))
    results: dict[int, list[float]] = {}

    def work(number: int) -> None:
        for _ in range(50):
            x = leaf(np.full(4, float(number)))
            (x * weight * x).sum().backward()
            results[number] = x.grad.numpy().tolist()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [2.0 * number * w for w in range(4)] for number in range(4)}


def test_public_names() -> None:
    assert set(minitl.__all__) <= set(dir(minitl))
    for name in ops.__all__:
        assert hasattr(ops, name)
