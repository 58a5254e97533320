"""What the case table cannot show: kinks and ties, conversions, and what each operation refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitl
from minitl import Tensor, ops
from minitl.ops.operands import normalise_axes, unbroadcast
from minitl.ops.registry import register
from minitl.random import default_generator


def leaf(values: Any, dtype: str = "float64") -> Tensor:
    return Tensor(np.array(values, dtype=dtype), requires_grad=True)


def gradient(call: Callable[..., Tensor], *values: Any) -> list[Any]:
    leaves = [leaf(value) for value in values]
    call(*leaves).sum().backward()
    return [x.grad.numpy().tolist() for x in leaves]


@pytest.mark.parametrize(
    ("call", "values", "wanted"),
    [
        (ops.relu, [[-1.0, 0.0, 2.0]], [[0.0, 0.0, 1.0]]),
        (ops.absolute, [[-1.0, 0.0, 2.0]], [[-1.0, 0.0, 1.0]]),
        (lambda x: x**0, [[0.0, 3.0]], [[0.0, 0.0]]),
        (lambda x: x**1, [[0.0, 3.0]], [[1.0, 1.0]]),
        (lambda x: x**2, [[0.0, 3.0]], [[0.0, 6.0]]),
        (ops.max, [[3.0, 1.0, 3.0]], [[0.5, 0.0, 0.5]]),
        (ops.min, [[1.0, 3.0, 1.0, 1.0]], [[1 / 3, 0.0, 1 / 3, 1 / 3]]),
        (lambda x: x.max(axis=1), [[[1.0, 1.0], [0.0, 2.0]]], [[[0.5, 0.5], [0.0, 1.0]]]),
        (ops.maximum, [[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]], [[0.5, 0.0, 1.0], [0.5, 1.0, 0.0]]),
        (ops.minimum, [[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]], [[0.5, 1.0, 0.0], [0.5, 0.0, 1.0]]),
        (lambda x: ops.maximum(x, 0), [[-1.0, 0.0, 1.0]], [[0.0, 0.5, 1.0]]),
        (lambda x: x[np.array([0, 0, 2])], [[5.0, 6.0, 7.0]], [[2.0, 0.0, 1.0]]),
        (lambda x: x[[]], [[5.0, 6.0]], [[0.0, 0.0]]),
        (lambda x: x[1:], [[5.0, 6.0]], [[0.0, 1.0]]),
        (lambda x: x[Tensor(np.array([1]))], [[5.0, 6.0]], [[0.0, 1.0]]),
    ],
)
def test_gradient_where_finite_differences_say_nothing(call: Any, values: Any, wanted: Any) -> None:
    assert gradient(call, *values) == wanted


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: ops.power(x, x), TypeError, r"exp\(exponent \* log\(x\)\)"),
        (lambda x: x + "1", TypeError, "combined with str"),
        (lambda x: x + None, TypeError, "combined with NoneType"),
        (lambda x: ops.add(1, 2), TypeError, "at least one operand must be a Tensor"),
        (lambda x: ops.where(x, x, x), TypeError, "condition must be bool, not float64"),
        (lambda x: x.sum(axis=2), ValueError, "axis 2 is out of range for a tensor with 2"),
        (lambda x: x.sum(axis=(0, -2)), ValueError, "named twice"),
        (lambda x: x[0:0].mean(), ValueError, "nothing to average"),
        (lambda x: x.reshape(5), ValueError, "reshape"),
        (lambda x: x[7], IndexError, "out of bounds"),
        (lambda x: x @ x.T[:2], ValueError, r"inner lengths differ, \(2, 3\) @ \(2, 2\)"),
        (lambda x: x @ 2.0, ValueError, "at least one dimension"),
        (lambda x: ops.concatenate([]), ValueError, "at least one"),
        (lambda x: ops.stack([]), ValueError, "at least one"),
        (lambda x: ops.scatter_rows(x, np.array([0]), 3), ValueError, "2 rows of values"),
        (lambda x: ops.scatter_rows(x, np.array([0, 3]), 3), ValueError, "row number 3 at position 1 is out of range"),
        (lambda x: ops.scatter_rows(x, np.array([1, 1]), 3), ValueError, "occurs twice"),
        (lambda x: ops.scatter_rows(x, np.array([True, False]), 3), TypeError, "integers, not bool"),
        (lambda x: ops.scatter_rows(x, np.array([0.0, 1.0]), 3), TypeError, "integers, not float64"),
        (lambda x: ops.take_rows(x, np.array([2])), ValueError, "row number 2 at position 0 is out of range"),
        (lambda x: ops.take_rows(x, np.array([-1])), ValueError, "row number -1 at position 0 is out of range"),
        (lambda x: ops.take_rows(x, np.array([1, 1])), ValueError, "occurs twice"),
        (lambda x: ops.take_rows(x, np.array([True, False])), TypeError, "integers, not bool"),
        (lambda x: ops.take_rows(x, np.array([[0]])), ValueError, r"rows \(M,\), got \(2, 3\) and \(1, 1\)"),
        (lambda x: ops.take_rows(x[0, 0], np.array([0])), ValueError, r"needs x \(N, ...\)"),
        (lambda x: ops.linear(x, x[0]), ValueError, r"weight \(3,\)"),
        (lambda x: ops.linear(x, x.T), ValueError, r"x \(2, 3\) does not end"),
        (lambda x: ops.linear(x, x, x[0]), ValueError, r"bias \(3,\)"),
        (lambda x: ops.linear_many(x, [x], [x[0]]), ValueError, r"linear_many: bias \(3,\)"),
        (lambda x: ops.linear_many(x, [x, x.T], [x[:, 0]] * 2), ValueError, r"linear_many: x \(2, 3\) does not end"),
        (lambda x: ops.linear_many(x, [x, x], [x[:, 0]]), ValueError, "got 2 and 1"),
        (lambda x: ops.linear_many(x, [], []), ValueError, "got 0 and 0"),
        (lambda x: ops.gelu(x, x[:, 0]), ValueError, r"bias \(2,\)"),
        (lambda x: ops.gelu(x, approximate="sigmoid"), ValueError, "'none' or 'tanh', not 'sigmoid'"),
        (lambda x: ops.layer_norm(x, x[:, 0], x[0], eps=1e-5), ValueError, r"weight \(2,\)"),
        (lambda x: ops.layer_norm(x, x[0], x[0], eps=1e-5, residual=x[0]), ValueError, r"residual \(3,\)"),
        (lambda x: ops.softmax(x[0, 0]), ValueError, "at least one column"),
        (lambda x: ops.softmax(x[:, :0]), ValueError, "at least one column"),
        (lambda x: ops.softmax(x, np.ones((2, 3))), TypeError, "mask must be bool"),
        (lambda x: ops.dropout(x, 1.0), ValueError, r"in \[0, 1\), got 1.0"),
        (lambda x: ops.dropout(x, -0.1), ValueError, r"in \[0, 1\)"),
        (lambda x: ops.dropout(x, float("nan")), ValueError, r"in \[0, 1\)"),
        (lambda x: ops.dropout(x, 0.5, rows=np.array([0.0, 1.0])), TypeError, "integers, not float64"),
        (lambda x: ops.dropout(x, 0.5, rows=np.array([0])), ValueError, r"rows \(1,\) number the rows of x \(N, D\)"),
        (lambda x: ops.dropout(x[0], 0.5, rows=np.array([0, 1, 2])), ValueError, r"which has shape \(3,\)"),
        (lambda x: ops.dropout(x, 0.5, rows=np.array([3, -2])), ValueError, "negative, got -2"),
        (lambda x: ops.layer_norm(x, x[0], x[0], eps=0.1, rows=np.array([0])), ValueError, r"layer_norm: rows \(1,\)"),
        (lambda x: ops.embedding(x, np.array([0.0])), TypeError, "ids must be integers, not float64"),
        (lambda x: ops.cross_entropy(x, np.array([0.0, 1.0])), TypeError, "labels must be integers"),
        (lambda x: ops.cross_entropy(x, np.array([0])), ValueError, r"got \(2, 3\) and \(1,\)"),
        (lambda x: ops.cross_entropy(x[0], np.array([0, 1, 2])), ValueError, r"logits \(N, C\)"),
        (lambda x: ops.cross_entropy(x, np.array([0, 1]), label_smoothing=1.0), ValueError, "label_smoothing"),
        (
            lambda x: ops.cross_entropy(x, np.array([0, 1]), class_weights=np.ones(2)),
            ValueError,
            r"\(2,\) for 3 classes",
        ),
        (lambda x: ops.attention(x, x, x[:1], np.array([0, 2]), heads=1), ValueError, r"three equal \(T, D\)"),
        (lambda x: ops.attention(x, x, x, np.array([0, 2]), heads=2), ValueError, "among 2 heads"),
        (lambda x: ops.attention(x, x, x, np.array([0, 2]), heads=0), ValueError, "among 0 heads"),
        (lambda x: ops.attention(x, x, x, np.array([0, 1]), heads=1), ValueError, "grow from 0 to 2"),
        (lambda x: ops.attention(x, x, x, np.array([1, 2]), heads=1), ValueError, "grow from 0 to 2"),
        (lambda x: ops.attention(x, x, x, np.array([0, 1, 1, 2]), heads=1), ValueError, "grow from 0 to 2"),
        (lambda x: ops.attention(x, x, x, np.array([0.0, 2.0]), heads=1), ValueError, "integers"),
        (lambda x: ops.attention(x, x, x, np.array([0]), heads=1), ValueError, "B >= 1"),
    ],
)
def test_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(Tensor(np.arange(6.0).reshape(2, 3)))


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    position=st.integers(0, 124),
    value=st.sampled_from([-1, -2, 7, 8, 2**40]),
)
def test_an_id_out_of_range_is_named_with_its_position(shape: tuple[int, ...], position: int, value: int) -> None:
    ids = np.zeros(shape, dtype=np.int64)
    ids.reshape(-1)[position % ids.size] = value
    index = tuple(int(i) for i in np.unravel_index(position % ids.size, shape))
    place = index[0] if len(index) == 1 else index
    with pytest.raises(
        ValueError, match=re.escape(f"id {value} at position {place} is out of range: there are 7, 0 to 6")
    ):
        ops.embedding(Tensor(np.zeros((7, 2))), ids)


@pytest.mark.parametrize("wrong", [-1, 3, -99, 100])
def test_a_label_out_of_range_is_named_with_its_position(wrong: int) -> None:
    labels = np.array([0, -100, 2, wrong, 1])
    with pytest.raises(ValueError, match=f"label {wrong} at position 3 is out of range: there are 3, 0 to 2"):
        ops.cross_entropy(Tensor(np.zeros((5, 3))), labels)


def test_another_ignore_index() -> None:
    logits = leaf([[1.0, 2.0], [3.0, 5.0]])
    loss = ops.cross_entropy(logits, np.array([-1, 0]), ignore_index=-1)
    assert loss.item() == pytest.approx(np.log1p(np.exp(2.0)), rel=1e-15)  # one row: log(e^3 + e^5) - 3
    with pytest.raises(ValueError, match="label -100 at position 0"):
        ops.cross_entropy(logits, np.array([-100, 0]), ignore_index=-1)


def test_nothing_scored_is_exactly_zero_with_zero_gradients() -> None:
    logits = leaf([[1.0, 2.0], [3.0, 5.0]])
    loss = ops.cross_entropy(logits, np.array([-100, -100]))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad.numpy().tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert ops.cross_entropy(logits[:0], np.array([], dtype=np.int64)).item() == 0.0


@pytest.mark.parametrize("padding", [0, 1])  # 0 is BERT's, and no reason to think that there is none
def test_padding_row_has_a_value_but_no_gradient(padding: int) -> None:
    table = leaf([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    y = ops.embedding(table, np.array([[padding, 1 - padding], [padding, 2]]), padding_id=padding)
    rows = table.numpy().tolist()
    assert y.numpy().tolist() == [[rows[padding], rows[1 - padding]], [rows[padding], rows[2]]]
    y.sum().backward()
    wanted = [[1.0, 1.0]] * 3
    wanted[padding] = [0.0, 0.0]
    assert table.grad.numpy().tolist() == wanted


def test_fully_masked_row_is_zero_with_zero_gradient() -> None:
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    y = ops.softmax(x, np.array([[False], [True]]))
    (y * Tensor(np.array([[1.0, 2.0], [3.0, 5.0]]))).sum().backward()
    assert y.numpy()[0].tolist() == [0.0, 0.0]
    assert x.grad.numpy()[0].tolist() == [0.0, 0.0]
    assert y.numpy()[1].sum() == pytest.approx(1.0, abs=1e-15)  # one rounding of each of two quotients
    assert x.grad.numpy()[1, 1] > 0.1


def test_float_dtypes_convert_and_carry_the_gradient_back() -> None:
    x = leaf([0.1, 0.2])
    y = x.astype("float32")
    assert y.dtype == np.float32
    (y * y).sum().backward()
    assert x.grad.dtype == np.float64
    np.testing.assert_array_equal(x.grad.numpy(), 2 * x.numpy().astype(np.float32))  # doubling is exact
    assert x.astype("int64").requires_grad is False
    assert (x > 0.15).astype("float32").numpy().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("number", [2, 2.0, np.float64(2), np.float32(2), np.int64(2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_adopt_the_dtype(number: Any, dtype: str) -> None:
    x = leaf([1.0, 3.0], dtype)
    for result in (x + number, number - x, x * number, number / x, x**number, ops.maximum(x, number)):
        assert result.dtype == dtype
    assert (x**number).numpy().tolist() == [1.0, 9.0]
    assert (number / x).numpy()[0] == 2.0


def test_comparisons_have_values_and_no_history() -> None:
    x, y = leaf([1.0, 2.0, 3.0]), leaf([3.0, 2.0, 1.0])
    for result, wanted in [
        (x == y, [False, True, False]),
        (x != y, [True, False, True]),
        (x < y, [True, False, False]),
        (x <= y, [True, True, False]),
        (x > y, [False, False, True]),
        (x >= 2, [False, True, True]),
        (2 > x, [True, False, False]),  # noqa: SIM300  the reflected comparison is the point
    ]:
        assert result.dtype == bool
        assert not result.requires_grad
        assert result.numpy().tolist() == wanted
    assert ops.argmax(Tensor(np.array([[1.0, 5.0], [5.0, 2.0]]))).item() == 1, "the first of ties"
    assert ops.argmax(Tensor(np.array([[1.0, 5.0], [7.0, 2.0]])), axis=-1).numpy().tolist() == [1, 0]


def test_nan_propagates_through_choices() -> None:
    x = Tensor(np.array([np.nan, 1.0]))
    for y in (ops.maximum(x, 0), ops.minimum(x, 0), ops.relu(x), ops.erf(x), abs(x)):
        assert np.isnan(y.numpy()).tolist() == [True, False]
    assert np.isnan(x.max().item())
    assert np.isnan(x.min().item())


def test_dropout_draws_one_call_each_and_none_without_need() -> None:
    minitl.manual_seed(3)
    x = Tensor(np.ones((4, 8)))
    first, second = ops.dropout(x, 0.5).numpy(), ops.dropout(x, 0.5).numpy()
    assert default_generator().call == 2
    assert (first != second).any()
    assert set(np.unique(first)) == {0.0, 2.0}
    np.testing.assert_array_equal(ops.dropout(x, 0.0).numpy(), x.numpy())
    assert default_generator().call == 2
    minitl.manual_seed(3)
    np.testing.assert_array_equal(ops.dropout(x, 0.5).numpy(), first)


def test_dropout_keeps_the_share_it_should() -> None:
    x = leaf(np.ones(100_000))
    y = ops.dropout(x, 0.1)
    y.sum().backward()
    kept = (y.numpy() != 0).mean()
    assert kept == pytest.approx(0.9, abs=0.005)  # 5 standard deviations of 100,000 draws: 5 sqrt(0.09 / 1e5)
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())  # the same mask and scale, since x is 1


@given(st.lists(st.integers(1, 3), max_size=3), st.data())
def test_unbroadcast_undoes_broadcasting(shape: list[int], data: st.DataObject) -> None:
    """The adjoint rule: <broadcast(x), g> = <x, unbroadcast(g)>; small integers make it exact."""
    small = [length if data.draw(st.booleans()) else 1 for length in shape][data.draw(st.integers(0, len(shape))) :]
    random = np.random.default_rng(0)
    x, grad = random.integers(-5, 5, small), random.integers(-5, 5, shape)
    back = unbroadcast(grad, tuple(small))
    assert back.shape == tuple(small)
    assert (np.broadcast_to(x, shape) * grad).sum() == (x * back).sum()


def test_normalise_axes() -> None:
    assert normalise_axes(None, 3) == (0, 1, 2)
    assert normalise_axes(-1, 3) == (2,)
    assert normalise_axes((2, -3), 3) == (0, 2)
    assert normalise_axes(None, 0) == ()


def test_two_operations_cannot_share_a_name() -> None:
    with pytest.raises(ValueError, match="two operations called 'add'"):
        register("add")(ops.OPS["add"])
