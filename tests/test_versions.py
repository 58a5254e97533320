"""Writing in place between forward and backward: an error where the old value is needed, none where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fused_cases import VARIANTS
from op_cases import Variant

from minitl import Function, Tensor, nn, ops, optim

OVERWRITTEN = "overwritten in place"


def leaf(values: Any, dtype: str = "float64") -> Tensor:
    return Tensor(np.array(values, dtype=dtype), requires_grad=True)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_no_operation_is_ever_silently_wrong(variant: Variant) -> None:
    """Whatever is overwritten, argument or result: backward raises, or gives the gradients it would have given."""
    shape = next(shape for shape in [(2, 3), (3,), (2, 3, 2)] if variant.takes(shape))
    case = variant.build(shape, np.random.default_rng(0))
    weight: np.ndarray | None = None
    wanted: list[np.ndarray] = []
    for target in ("nothing", *range(len(case.arrays)), "result"):
        leaves = [Tensor(array.copy(), requires_grad=True) for array in case.arrays]
        result = case.call(*leaves)
        weight = np.random.default_rng(1).standard_normal(result.shape) if weight is None else weight
        if isinstance(target, int):
            leaves[target].copy_(leaves[target].numpy() * 0.5 + 0.1)
        elif target == "result" and variant.op != "broadcast_to":  # its result is a read-only view
            result.copy_(result.numpy() * 0.5 + 0.1)
        try:
            result.backward(Tensor(np.asarray(weight)))
        except RuntimeError as error:
            if target == "nothing" or OVERWRITTEN not in str(error):
                raise
            continue
        gradients = [x.grad.numpy() for x in leaves]
        wanted = wanted or gradients
        for gradient, reference in zip(gradients, wanted, strict=True):
            np.testing.assert_array_equal(gradient, reference)


def matrix() -> Tensor:
    return leaf([[1.0, 2.0], [3.0, 5.0]])


NEEDED: dict[str, Callable[[Tensor], Tensor]] = {
    "multiply": lambda x: x * matrix(),
    "multiply, other side": lambda x: matrix() * x,
    "divide by": lambda x: 1 / x,
    "power": lambda x: x**2,
    "log": ops.log,
    "erf": ops.erf,
    "relu": ops.relu,
    "absolute": abs,
    "max": ops.max,
    "maximum": lambda x: ops.maximum(x, 2.5),
    "matmul": lambda x: matrix() @ x,
    "linear input": lambda x: ops.linear(x, matrix()),
    "linear weight": lambda x: ops.linear(matrix(), x),
    "gelu": ops.gelu,
    "gelu bias": lambda x: ops.gelu(matrix(), x[0]),
    "layer_norm input": lambda x: ops.layer_norm(x, matrix()[0], matrix()[0], eps=1e-5),
    "layer_norm weight": lambda x: ops.layer_norm(matrix(), x[0], matrix()[0], eps=1e-5),
    "cross_entropy": lambda x: ops.cross_entropy(x, np.array([0, 1])),
    "attention query": lambda x: ops.attention(x, matrix(), matrix(), np.array([0, 2]), heads=1),
    "attention value": lambda x: ops.attention(matrix(), matrix(), x, np.array([0, 2]), heads=1),
    "through a view": lambda x: x.reshape(4)[1:] ** 2,
    "through detach": lambda x: x.detach() * matrix(),
    "saved in a list": lambda x: KeepsList.apply(x),
}

NOT_NEEDED: dict[str, Callable[[Tensor], Tensor]] = {
    "focal_loss": lambda x: ops.focal_loss(x, np.array([0, 1]), gamma=2.0),
    "add": lambda x: x + matrix(),
    "subtract": lambda x: matrix() - x,
    "negative": lambda x: -x,
    "sum": ops.sum,
    "mean": lambda x: x.mean(axis=0),
    "divide": lambda x: x / 3,
    "multiply by a constant": lambda x: x + x.detach().exp(),
    "exp": ops.exp,
    "tanh": ops.tanh,
    "softmax": ops.softmax,
    "dropout": lambda x: ops.dropout(x, 0.5),
    "embedding table": lambda x: ops.embedding(x, np.array([1, 1])),
    "linear bias": lambda x: ops.linear(matrix(), matrix(), x[0]),
    "layer_norm bias": lambda x: ops.layer_norm(matrix(), matrix()[0], x[0], eps=1e-5),
    "layer_norm with residual": lambda x: ops.layer_norm(
        x, matrix()[0].detach(), matrix()[0], eps=1e-5, residual=matrix()
    ),
    "reshape": lambda x: x.reshape(4),
    "slice": lambda x: x[1:],
    "concatenate": lambda x: ops.concatenate([x, x]),
    "astype": lambda x: x.astype("float32"),
    "where": lambda x: ops.where(np.array([True, False]), x, 0),
}


class KeepsList(Function):
    def forward(self, x: Any) -> Any:
        self.kept = [x, x]
        return x * x

    def backward(self, grad_y: Any) -> Any:
        return 2 * grad_y * self.kept[1]


@pytest.mark.parametrize("name", NEEDED)
def test_overwriting_what_is_needed_raises(name: str) -> None:
    x = matrix()
    y = NEEDED[name](x).sum()
    x.copy_(np.ones((2, 2)))
    with pytest.raises(RuntimeError, match=OVERWRITTEN):
        y.backward()


@pytest.mark.parametrize("name", NOT_NEEDED)
def test_overwriting_what_is_not_needed_is_fine(name: str) -> None:
    x = matrix()
    y = NOT_NEEDED[name](x).sum()
    x.copy_(np.ones((2, 2)))
    y.backward()
    assert x.grad is not None


@pytest.mark.parametrize(
    "call", [ops.exp, ops.tanh, ops.sqrt, ops.softmax, lambda x: ops.max(x, axis=0), lambda x: matrix() / x]
)
def test_overwriting_a_result_that_is_needed_raises(call: Any) -> None:
    y = call(matrix())
    y.copy_(np.zeros(y.shape))
    with pytest.raises(RuntimeError, match=OVERWRITTEN):
        y.sum().backward()


@pytest.mark.parametrize(
    "view", [lambda x: x[0], lambda x: x.T, lambda x: x.reshape(4), lambda x: x.detach(), lambda x: x[:, ::-1][1:]]
)
def test_writing_through_a_view_counts_for_the_base_and_the_other_way(view: Any) -> None:
    x = matrix()
    y = (x * x).sum()
    part = view(x)
    part.copy_(np.zeros(part.shape))
    assert 0 in x.numpy(), "it is a view"
    with pytest.raises(RuntimeError, match=OVERWRITTEN):
        y.backward()
    x = matrix()
    part = view(x)
    y = (part * leaf(np.ones(part.shape))).sum()
    x.copy_(np.zeros((2, 2)))
    with pytest.raises(RuntimeError, match=OVERWRITTEN):
        y.backward()


def test_a_copy_has_a_version_of_its_own() -> None:
    a = matrix()
    b = (a + 0) ** 2
    a.copy_(np.zeros((2, 2)))
    b.sum().backward()
    assert a.grad.numpy().tolist() == [[2.0, 4.0], [6.0, 10.0]]


def test_integer_arguments_are_taken_as_they_are_now() -> None:
    """Ids, labels, indices and conditions may be Tensors; overwriting them must not reach a recorded operation."""
    ids, labels, index = Tensor(np.array([0, 0])), Tensor(np.array([1, 0])), Tensor(np.array([0, 0]))
    results = []
    for overwrite in (False, True):
        x = matrix()
        terms = [ops.embedding(x, ids).sum(), ops.cross_entropy(x, labels), (x[index] * 2).sum()]
        if overwrite:
            ids.copy_([1, 1])
            labels.copy_([0, 1])
            index.copy_([1, 1])
        (terms[0] + terms[1] + terms[2]).backward()
        results.append(x.grad.numpy())
    np.testing.assert_array_equal(results[0], results[1])
    condition = Tensor(np.array([True, False]))
    x = matrix()
    y = ops.where(condition, x, 0).sum()
    condition.copy_([False, True])
    with pytest.raises(RuntimeError, match=OVERWRITTEN):
        y.backward()


def test_load_state_dict_between_forward_and_backward() -> None:
    layer = nn.Linear(2, 2)
    loss = layer(leaf([[1.0, 2.0]], "float32")).sum()
    layer.load_state_dict({name: value * 2 for name, value in layer.state_dict().items()})
    with pytest.raises(RuntimeError, match=OVERWRITTEN):
        loss.backward()


def step_of(parameters: list[Tensor], kind: str) -> optim.Optimizer:
    return optim.AdamW(parameters) if kind == "AdamW" else optim.SGD(parameters, momentum=0.9)


@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_an_optimizer_step_between_forward_and_backward(kind: str) -> None:
    layer = nn.Linear(2, 2)
    optimizer = step_of(layer.parameters(), kind)
    x = leaf([[1.0, 2.0]], "float32")
    layer(x).sum().backward()
    loss = layer(x).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match=r"Linear\.backward needs a value that was overwritten"):
        loss.backward()


@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_a_step_does_not_disturb_what_it_did_not_write(kind: str) -> None:
    """A parameter without a gradient is not updated: its recorded operations stay good; so does a bias, never saved."""
    used, unused, bias = leaf([1.0]), leaf([2.0]), leaf([3.0])
    optimizer = step_of([used, unused, bias], kind)
    (used * 3 + bias).sum().backward()
    later = (unused * unused + bias).sum()
    optimizer.step()
    later.backward()
    assert unused.grad.numpy().tolist() == [4.0]
    assert unused.numpy().tolist() == [2.0]
    assert used.numpy()[0] < 1.0


def test_a_step_without_gradients_writes_nothing() -> None:
    x = leaf([2.0])
    optimizer = optim.AdamW([x])
    y = (x * x).sum()
    optimizer.step()
    y.backward()
    assert x.grad.numpy().tolist() == [4.0]
