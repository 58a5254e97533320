"""The tape: fan-outs, order, freeing, versions, modes, and Functions that users write."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl import Function, Tensor, no_grad, ops
from minitl.autograd import is_grad_enabled


def leaf(values: Any) -> Tensor:
    return Tensor(np.array(values, dtype=np.float64), requires_grad=True)


def grad_of(x: Tensor) -> Any:
    assert x.grad is not None
    return x.grad.numpy().tolist()


# -- fan-out and order -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (lambda x: x + x, 2.0),
        (lambda x: x * x, 6.0),
        (lambda x: x * x * x, 27.0),
        (lambda x: (x * 2) * (x * 5), 60.0),
        (lambda x: x - x, 0.0),
        (lambda x: ops.concatenate([x.reshape(1), x.reshape(1), x.reshape(1)]).sum(), 3.0),
        (lambda x: ops.broadcast_to(x, (4, 5)).sum(), 20.0),
        (lambda x: (x * x).detach() * x, 9.0),
    ],
)
@pytest.mark.parametrize("shape", [(), (1,)])
def test_fan_out(call: Callable[[Tensor], Tensor], wanted: float, shape: tuple[int, ...]) -> None:
    x = leaf(np.full(shape, 3.0))
    call(x).sum().backward()
    assert x.grad.item() == wanted
    assert x.grad.shape == x.shape
    assert type(x.grad.array) is np.ndarray


def test_diamond_visits_each_function_once() -> None:
    visits = []

    class Double(Function):
        def forward(self, x: Any) -> Any:
            return 2 * x

        def backward(self, grad_y: Any) -> Any:
            visits.append(grad_y.tolist())
            return 2 * grad_y

    x = leaf([1.0])
    a = Double.apply(x)
    (a * 3 + a * a + a).sum().backward()
    assert visits == [[3.0 + 2 * 2.0 + 1.0]], "all gradients have arrived before the one visit"
    assert grad_of(x) == [16.0]


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100), st.sampled_from("+*-")), min_size=1, max_size=12))
def test_any_graph(steps: list[tuple[int, int, str]]) -> None:
    """Random graphs of reused nodes, against forward-mode derivatives carried along."""
    x = leaf(2.0)
    nodes, slopes = [x, Tensor(np.array(3.0))], [(2.0, 1.0), (3.0, 0.0)]
    for left, right, sign in steps:
        i, j = left % len(nodes), right % len(nodes)
        (a, da), (b, db) = slopes[i], slopes[j]
        if sign == "*" and abs(a * b) > 1e6:
            sign = "-"
        value = {"+": a + b, "-": a - b, "*": a * b}[sign]
        slope = {"+": da + db, "-": da - db, "*": da * b + a * db}[sign]
        p, q = nodes[i], nodes[j]
        nodes.append(p + q if sign == "+" else p - q if sign == "-" else p * q)
        slopes.append((value, slope))
    if not nodes[-1].requires_grad:
        return
    nodes[-1].backward()
    assert nodes[-1].item() == slopes[-1][0]
    # sums that cancel may round: 1e-12 of slopes of at most a few million
    assert x.grad is None or x.grad.item() == pytest.approx(slopes[-1][1], rel=1e-12, abs=1e-6)


def test_gradients_of_several_calls_add_up() -> None:
    x = leaf([1.0, 2.0])
    (x * 3).sum().backward()
    held = x.grad
    (x * x).sum().backward()
    assert grad_of(x) == [5.0, 7.0]
    assert held.numpy().tolist() == [5.0, 7.0], "grad is accumulated in place"


def test_a_leafs_gradient_is_its_own_memory() -> None:
    """add hands the same array to both operands: the leaves must not share it."""
    x, y = leaf([1.0]), leaf([1.0])
    z = x + y
    start = Tensor(np.array([2.0]))
    z.backward(start)
    x.grad.array += 100
    assert grad_of(y) == [2.0]
    assert start.numpy().tolist() == [2.0]


def test_accumulation_does_not_write_into_gradients_on_their_way() -> None:
    """a's gradient from the sum is the same array that goes to b; adding a's second one in place would spoil b's."""
    x, y = leaf([1.0]), leaf([1.0])
    a, b = x * 1, y * 1
    c = a + b
    (c + a * 10).sum().backward()
    assert (grad_of(x), grad_of(y)) == ([11.0], [1.0])


def test_accumulation_leaves_an_array_alone_that_went_to_two() -> None:
    """a and b got one array from their sum; before either is visited, another gradient of a arrives, then one of b."""
    x, y = leaf([1.0]), leaf([1.0])
    a, b = x * 1, y * 1
    total = (a + b) * 1
    (b * 100 + (a * 10 + total)).sum().backward()
    assert (grad_of(x), grad_of(y)) == ([11.0], [101.0])


def test_backward_of_a_leaf_is_its_own_gradient() -> None:
    x = leaf(3.0)
    x.backward()
    assert x.grad.item() == 1.0


def test_backward_with_a_gradient() -> None:
    x = leaf([1.0, 2.0])
    (x * x).backward(Tensor(np.array([1.0, 10.0])))
    assert grad_of(x) == [2.0, 40.0]


def chain(x: Tensor, depth: int) -> Tensor:
    assert sys.getrecursionlimit() < depth
    for _ in range(depth):
        x = -x
    return x


def test_a_deep_chain_is_walked() -> None:
    """Neither the walk nor the release of what it has passed may recurse."""
    x = leaf(1.0)
    chain(x, 50_000).backward()
    assert x.grad.item() == 1.0


def test_a_deep_chain_is_released_unwalked() -> None:
    """The chain goes by reference counts, one after the other, without overflowing the C stack."""
    x = leaf(1.0)
    first = -x
    function = weakref.ref(first.creator)
    y = chain(first, 50_000)
    del first
    assert function() is not None
    del y
    assert function() is None


def test_wide_sharing_is_not_exponential() -> None:
    """60 doublings have 2^60 paths but 60 nodes."""
    x = leaf(1.0)
    y = x
    for _ in range(60):
        y = y + y
    y.backward()
    assert x.grad.item() == 2.0**60


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_second_backward() -> None:
    x = leaf([1.0])
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="second time through the same graph"):
        y.backward()
    assert grad_of(x) == [2.0]


def test_second_backward_through_a_shared_part() -> None:
    x = leaf([1.0])
    shared = x * x
    first, second = (shared * 2).sum(), (shared * 3).sum()
    first.backward()
    with pytest.raises(RuntimeError, match="add the losses and call backward\\(\\) once"):
        second.backward()


def test_root_of_several_elements() -> None:
    x = leaf([1.0, 2.0])
    with pytest.raises(ValueError, match=r"backward\(\) from shape \(2,\) needs a gradient"):
        (x * x).backward()
    for wrong in (np.zeros(3), np.zeros((2, 1)), np.zeros(2, np.float32)):
        with pytest.raises(ValueError, match="got a gradient"):
            (x * x).backward(Tensor(wrong))
    (x * x)[:1].backward()
    assert grad_of(x) == [2.0, 0.0]


def test_root_without_history() -> None:
    with no_grad():
        y = leaf(1.0) * 2
    for root in (Tensor(1.0), y, leaf(1.0).detach(), leaf(1.0) > 0):
        with pytest.raises(RuntimeError, match="without history"):
            root.backward()


# -- no_grad -----------------------------------------------------------------------------------------------------------


def test_no_grad_records_nothing() -> None:
    x = leaf([1.0])
    with no_grad():
        assert not is_grad_enabled()
        y = x * 2
        with no_grad():
            pass
        assert not is_grad_enabled(), "an inner block must not switch it on again"
    assert y.is_leaf
    assert not y.requires_grad
    assert is_grad_enabled()
    with pytest.raises(RuntimeError, match="on purpose"), no_grad():
        raise RuntimeError("on purpose")
    assert is_grad_enabled()


def test_no_grad_as_a_decorator() -> None:
    @no_grad()
    def double(x: Tensor) -> Tensor:
        return x * 2

    for _ in range(2):
        assert not double(leaf([1.0])).requires_grad
    assert is_grad_enabled()


def test_no_grad_does_not_reach_other_threads() -> None:
    inside, recorded = threading.Event(), []
    done = threading.Event()

    def other() -> None:
        inside.wait(10)
        recorded.append((leaf([1.0]) * 2).requires_grad)
        with no_grad():
            done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with no_grad():
        inside.set()
        assert done.wait(10)
        assert not is_grad_enabled()
    thread.join()
    assert recorded == [True]
    assert is_grad_enabled()
