"""One flat buffer: parameters keep their identity, gradients their values, and whoever leaves is noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitl
from minitl import Tensor, nn, ops, optim
from minitl.nn import Module
from minitl.optim.flat_buffer import ALIGNMENT


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def leaf(values: Any, dtype: str = "float64") -> Tensor:
    return Tensor(np.array(values, dtype=dtype), requires_grad=True)


class Tied(Module):
    """A language model's shape: the table embeds the words and, as a matrix, scores them."""

    def __init__(self) -> None:
        minitl.manual_seed(0)
        self.table = nn.Embedding(6, 4, dtype="float64")
        self.head = nn.Linear(4, 6, dtype="float64")
        self.head.weight = self.table.weight
        self.norm = nn.LayerNorm(4, dtype="float64")

    def forward(self, ids: np.ndarray) -> Tensor:
        return ops.cross_entropy(self.head(self.norm(self.table(ids))), ids)


@given(st.lists(st.sampled_from([(), (1,), (3,), (2, 3), (0,), (2, 0), (1, 2, 2)]), min_size=1, max_size=6))
def test_parameters_become_views_and_stay_themselves(shapes: list[tuple[int, ...]]) -> None:
    arrays = [np.random.default_rng(i).standard_normal(shape) for i, shape in enumerate(shapes)]
    parameters = [leaf(array) for array in arrays]
    gradients = [np.full(shape, float(i)) for i, shape in enumerate(shapes)]
    for parameter, gradient in zip(parameters[::2], gradients[::2], strict=True):
        parameter.grad = Tensor(gradient)
    optimizer = optim.SGD(parameters)
    buffer = optimizer.buffer
    assert buffer.parameters.size == sum(aligned(array.size) for array in arrays) == buffer.gradients.size
    offset = 0
    for number, (parameter, array) in enumerate(zip(parameters, arrays, strict=True)):
        assert buffer.segments[number] == (offset, array.size)
        np.testing.assert_array_equal(parameter.numpy(), array)
        assert parameter.shape == array.shape
        assert array.size == 0 or np.shares_memory(parameter.array, buffer.parameters[offset : offset + array.size])
        if number % 2 == 0:  # a gradient that existed is copied in
            np.testing.assert_array_equal(parameter.grad.numpy(), gradients[number])
            assert array.size == 0 or np.shares_memory(parameter.grad.array, buffer.gradients)
        else:
            assert parameter.grad is None
        assert not buffer.parameters[offset + array.size : offset + aligned(array.size)].any()
        offset += aligned(array.size)


def test_parameters_of_other_layouts() -> None:
    parameter = Tensor(np.arange(6.0).reshape(2, 3).T, requires_grad=True)
    optimizer = optim.SGD([parameter], lr=1.0)
    assert parameter.array.flags.c_contiguous
    assert parameter.numpy().tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    (parameter * Tensor(np.eye(3, 2))).sum().backward()
    optimizer.step()
    assert parameter.numpy().tolist() == [[-1.0, 3.0], [1.0, 3.0], [2.0, 5.0]]


def test_frozen_parameters_have_no_place() -> None:
    frozen, trained = Tensor(np.ones(3)), leaf([1.0, 2.0])
    array = frozen.array
    optimizer = optim.AdamW([frozen, trained])
    assert frozen.array is array
    assert optimizer.buffer.parameters.size == ALIGNMENT
    assert optimizer._first_moment.size == optimizer._second_moment.size == ALIGNMENT
    (frozen * trained.sum()).sum().backward()
    optimizer.step()
    assert frozen.numpy().tolist() == [1.0, 1.0, 1.0]
    assert frozen.grad is None


def test_grad_is_none_until_written_and_again_after_zero_grad() -> None:
    x, y = leaf([1.0, 2.0]), leaf([3.0])
    optimizer = optim.SGD([x, y], lr=0.5)
    (x * x).sum().backward()
    assert y.grad is None
    assert x.grad.numpy().tolist() == [2.0, 4.0]
    assert np.shares_memory(x.grad.array, optimizer.buffer.gradients)
    optimizer.zero_grad()
    assert x.grad is None
    (x * 3).sum().backward()
    assert x.grad.numpy().tolist() == [3.0, 3.0], "what lay in the buffer before is not added"
    x.grad = None
    assert x.grad is None
    optimizer.step()
    assert x.numpy().tolist() == [1.0, 2.0]


def test_assigning_copies_into_the_slot() -> None:
    x = leaf([1.0, 2.0])
    optimizer = optim.SGD([x], lr=1.0)
    given_gradient = Tensor(np.array([0.5, 0.25]))
    x.grad = given_gradient
    given_gradient.copy_([9.0, 9.0])
    assert np.shares_memory(x.grad.array, optimizer.buffer.gradients)
    optimizer.step()
    assert x.numpy().tolist() == [0.5, 1.75]


def gradients_of(model: Tied, batches: list[np.ndarray], with_optimizer: bool) -> dict[str, np.ndarray]:
    optimizer = optim.SGD(model.parameters()) if with_optimizer else None
    for batch in batches:
        model(batch).backward()
    assert optimizer is None or len(optimizer.buffer.slots) == len(model.parameters())
    return {name: parameter.grad.numpy().copy() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    "batches", [[np.array([0, 2, 5])], [np.array([0, 2, 5]), np.array([1, 3])]], ids=["once", "accumulated"]
)
def test_gradients_through_slots_are_the_same_bits(batches: list[np.ndarray]) -> None:
    """No id repeats, so that each element's sum has the same order with a slot and without."""
    plain = gradients_of(Tied(), batches, with_optimizer=False)
    slots = gradients_of(Tied(), batches, with_optimizer=True)
    assert plain.keys() == slots.keys() == {"table.weight", "head.bias", "norm.weight", "norm.bias"}
    for name, gradient in plain.items():
        np.testing.assert_array_equal(slots[name], gradient)


def test_tied_weights_share_one_slot_and_both_uses_count() -> None:
    """With repeated ids the order of the sums differs: a few float64 roundings of gradients below 1."""
    batch = np.array([0, 2, 2, 2, 5, 0])
    model = Tied()
    plain = gradients_of(model, [batch], with_optimizer=False)
    slots = gradients_of(Tied(), [batch], with_optimizer=True)
    for name, gradient in plain.items():
        np.testing.assert_allclose(slots[name], gradient, rtol=0, atol=1e-15)
    only_head, only_table = Tied(), Tied()
    table = Tensor(only_head.table.weight.numpy())
    ops.cross_entropy(only_head.head(only_head.norm(ops.embedding(table, batch))), batch).backward()
    head = Tensor(only_table.table.weight.numpy())
    y = ops.linear(only_table.norm(only_table.table(batch)), head, only_table.head.bias)
    ops.cross_entropy(y, batch).backward()
    parts = only_head.table.weight.grad.numpy() + only_table.table.weight.grad.numpy()
    np.testing.assert_allclose(slots["table.weight"], parts, rtol=0, atol=1e-15)


def test_a_slot_written_by_others_is_added_to() -> None:
    """linear writes into the slot itself, others through the tape: in either order both must be there."""
    for order in ((0, 1), (1, 0)):
        weight = leaf([[1.0, 2.0], [3.0, 4.0]])
        optim.SGD([weight])
        terms = [ops.linear(Tensor(np.ones((1, 2))), weight).sum(), (weight * 10).sum()]
        for number in order:
            terms[number].backward()
        assert weight.grad.numpy().tolist() == [[11.0, 11.0], [11.0, 11.0]]


def test_embedding_into_a_stale_slot_starts_from_zero() -> None:
    table = leaf(np.ones((3, 2)))
    optimizer = optim.SGD([table])
    for _ in range(2):
        ops.embedding(table, np.array([1, 1])).sum().backward()
        assert table.grad.numpy().tolist() == [[0.0, 0.0], [2.0, 2.0], [0.0, 0.0]]
        optimizer.zero_grad()


# -- leaving an optimizer ----------------------------------------------------------------------------------------------

LEAVE: dict[str, Callable[[nn.Linear], Any]] = {
    "to": lambda layer: layer.to(dtype="float64"),
    "newer optimizer": lambda layer: optim.SGD(layer.parameters()),
    "newer over one of them": lambda layer: optim.SGD([layer.bias]),
    "frozen": lambda layer: setattr(layer.weight, "requires_grad", False),
}


@pytest.mark.parametrize("kind", [optim.AdamW, optim.SGD])
@pytest.mark.parametrize("way", LEAVE)
def test_only_the_next_step_of_the_old_one_raises(kind: Any, way: str) -> None:
    layer = nn.Linear(2, 2)
    optimizer = kind(layer.parameters())
    layer(Tensor(np.ones((1, 2), np.float32))).sum().backward()
    LEAVE[way](layer)
    before = {name: value.copy() for name, value in layer.state_dict().items()}
    optimizer.zero_grad()
    x = Tensor(np.ones((1, 2), layer.weight.dtype))
    layer(x).sum().backward()
    with pytest.raises(RuntimeError, match="build the optimizer again"):
        optimizer.step()
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    again = kind(layer.parameters())
    layer(x).sum().backward()
    again.step()
    assert (layer.bias.numpy() != before["bias"]).all()


def test_unfreezing_is_noticed_too() -> None:
    frozen, trained = Tensor(np.ones(2)), leaf([1.0])
    optimizer = optim.AdamW([frozen, trained])
    optimizer.step()
    frozen.requires_grad = True
    with pytest.raises(RuntimeError, match="requires_grad of a parameter was changed"):
        optimizer.step()


def test_a_newer_optimizer_takes_values_and_gradients_along() -> None:
    x = leaf([1.0, 2.0])
    older = optim.SGD([x], lr=1.0)
    (x * 3).sum().backward()
    newer = optim.SGD([x], lr=1.0)
    assert x.grad.numpy().tolist() == [3.0, 3.0]
    older.buffer.parameters[:] = np.nan
    newer.step()
    assert x.numpy().tolist() == [-2.0, -1.0]


@pytest.mark.parametrize("kind", [optim.AdamW, optim.SGD])
@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        (lambda x: [], ValueError, "at least one parameter"),
        (lambda x: [x, x], ValueError, "given twice"),
        (lambda x: x, TypeError, "not a single tensor"),
        (lambda x: [x, 3], TypeError, "not int"),
        (lambda x: [x * 2], ValueError, "leaves"),
        (lambda x: [x, leaf([1.0], "float32")], ValueError, "share one device and dtype, found"),
        (lambda x: [optim.ParameterGroup([x], lr=-1.0)], ValueError, "lr must not be negative, got -1.0"),
        (lambda x: [optim.ParameterGroup([x], weight_decay=float("nan"))], ValueError, "weight_decay must not be neg"),
    ],
)
def test_refused(kind: Any, parameters: Any, error: type[Exception], message: str) -> None:
    x = leaf([1.0])
    array = x.array
    with pytest.raises(error, match=message):
        kind(parameters(x))
    assert x.array is array, "a refused optimizer has taken nothing"


def test_loading_goes_into_the_buffer() -> None:
    layer = nn.Linear(2, 1)
    optimizer = optim.SGD(layer.parameters(), lr=1.0)
    layer.load_state_dict({"weight": [[5.0, 6.0]], "bias": [7.0]})
    assert optimizer.buffer.parameters[[0, 1, ALIGNMENT]].tolist() == [5.0, 6.0, 7.0]
    layer(Tensor(np.ones((1, 2), np.float32))).sum().backward()
    optimizer.step()
    assert layer.weight.numpy().tolist() == [[4.0, 5.0]]
