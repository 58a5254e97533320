"""Modules find their parameters, name them, save, load, convert and switch modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minitl
from minitl import Tensor, nn, ops, optim
from minitl.nn import Module, Parameter
from minitl.random import default_generator


class Block(Module):
    def __init__(self, width: int) -> None:
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.dropout(self.dense(x)), residual=x)


class Model(Module):
    def __init__(self, width: int = 4) -> None:
        self.table = nn.Embedding(7, width, padding_id=0)
        self.layer = [Block(width) for _ in range(2)]
        self.scale = Parameter(np.ones(1, np.float32))
        self.nothing = None
        self.config = {"width": width}

    def forward(self, ids: np.ndarray) -> Tensor:
        x = self.table(ids)
        for block in self.layer:
            x = block(x)
        return ops.matmul(x * self.scale, self.table.weight.T)


NAMES = [
    "scale",
    "table.weight",
    *(
        f"layer.{number}.{name}"
        for number in (0, 1)
        for name in ("dense.weight", "dense.bias", "norm.weight", "norm.bias")
    ),
]


def test_names_and_order() -> None:
    model = Model()
    assert [name for name, _ in model.named_parameters()] == NAMES
    assert [id(p) for p in model.parameters()] == [id(p) for _, p in model.named_parameters()]
    assert [name for name, _ in model.named_children()] == ["table", "layer.0", "layer.1"]
    assert len(list(model.modules())) == 1 + 1 + 2 * 4


def test_tied_parameters_come_once_under_their_first_name() -> None:
    model = Model()
    model.head = nn.Linear(4, 7, bias=False)
    model.head.weight = model.table.weight
    assert [name for name, _ in model.named_parameters()] == NAMES
    assert "head.weight" not in model.state_dict()


def test_parameters_in_lists_are_found_too() -> None:
    class Layered(Module):
        def __init__(self) -> None:
            self.scales = [Parameter([1.0]), Parameter([2.0])]

    assert [name for name, _ in Layered().named_parameters()] == ["scales.0", "scales.1"]


def test_a_parameter_requires_a_gradient_and_a_tensor_is_none() -> None:
    class Odd(Module):
        def __init__(self) -> None:
            self.constant = Tensor([1.0])
            self.frozen = Parameter([1.0], requires_grad=False)

    assert [name for name, _ in Odd().named_parameters()] == ["frozen"]
    assert not Odd().frozen.requires_grad
    assert Parameter([1.0]).requires_grad


def test_forward_must_be_written() -> None:
    class Empty(Module):
        pass

    with pytest.raises(NotImplementedError, match="Empty needs a forward method"):
        Empty()(1)


def test_train_and_eval_reach_the_whole_tree() -> None:
    model = Model()
    ids = np.array([1, 2, 3])
    assert all(module.training for module in model.modules())
    minitl.manual_seed(1)
    first, second = model(ids).numpy(), model(ids).numpy()
    assert (first != second).any()
    assert model.eval() is model
    assert not any(module.training for module in model.modules())
    np.testing.assert_array_equal(model(ids).numpy(), model(ids).numpy())
    assert model.train() is model
    assert all(module.training for module in model.modules())


# -- state -------------------------------------------------------------------------------------------------------------


def test_state_dict_is_read_only_views() -> None:
    model = Model()
    state = model.state_dict()
    assert list(state) == NAMES
    for name, parameter in model.named_parameters():
        assert np.shares_memory(state[name], parameter.array)
        assert not state[name].flags.writeable


def test_loading_writes_in_place() -> None:
    source, target = Model(), Model()
    arrays = [parameter.array for parameter in target.parameters()]
    target.load_state_dict({name: value.astype(np.float64) for name, value in source.state_dict().items()})
    for parameter, array, name in zip(target.parameters(), arrays, NAMES, strict=True):
        assert parameter.array is array
        assert parameter.dtype == np.float32
        np.testing.assert_array_equal(array, source.state_dict()[name])
    ids = np.array([1, 2])
    np.testing.assert_array_equal(source.eval()(ids).numpy(), target.eval()(ids).numpy())


def test_tensors_and_lists_load_too() -> None:
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": Tensor([[1.0, 2.0]]), "bias": [3.0]})
    assert layer.weight.numpy().tolist() == [[1.0, 2.0]]
    assert layer.bias.numpy().tolist() == [3.0]


def test_a_state_that_does_not_fit_lists_everything_and_changes_nothing() -> None:
    model = Model()
    before = {name: value.copy() for name, value in model.state_dict().items()}
    state: dict[str, Any] = {name: value + 1 for name, value in before.items()}
    del state["scale"], state["layer.1.norm.bias"]
    state["layer.0.dense.bias"] = np.zeros((2, 2))
    state["table.weight"] = np.zeros(3)
    state["classifier.weight"] = np.zeros(1)
    with pytest.raises(ValueError, match="the state does not fit the module") as caught:
        model.load_state_dict(state)
    assert str(caught.value).splitlines()[1:] == [
        "  layer.0.dense.bias: expected shape (4,), got (2, 2)",
        "  missing: layer.1.norm.bias",
        "  missing: scale",
        "  table.weight: expected shape (7, 4), got (3,)",
        "  unknown: classifier.weight",
    ]
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


# -- conversion --------------------------------------------------------------------------------------------------------


def test_to_dtype_converts_parameters_and_drops_gradients() -> None:
    model = Model().eval()
    identities = [id(parameter) for parameter in model.parameters()]
    values = {name: value.copy() for name, value in model.state_dict().items()}
    model(np.array([1])).sum().backward()
    assert model.scale.grad is not None
    assert model.to(dtype="float64") is model
    assert [id(parameter) for parameter in model.parameters()] == identities
    for name, parameter in model.named_parameters():
        assert parameter.dtype == np.float64
        assert parameter.grad is None
        np.testing.assert_array_equal(parameter.numpy(), values[name])
    assert model(np.array([1])).dtype == np.float64


def test_to_where_it_is_already_changes_nothing() -> None:
    model = Model()
    arrays = [parameter.array for parameter in model.parameters()]
    optimizer = optim.SGD(model.parameters())
    model.eval()(np.array([1])).sum().backward()
    arrays = [parameter.array for parameter in model.parameters()]
    model.to("cpu", dtype=np.float32)
    assert all(p.array is array and p.grad is not None for p, array in zip(model.parameters(), arrays, strict=True))
    optimizer.step()


@pytest.mark.parametrize("dtype", ["float16", "int64", "bfloat16"])
def test_to_other_dtypes(dtype: str) -> None:
    with pytest.raises(TypeError):
        Model().to(dtype=dtype)


def test_to_another_device_and_back(strict_device: str) -> None:
    model = Model().eval()
    ids = np.array([1, 2])
    wanted = model(ids).numpy()
    model.to(strict_device)
    assert {parameter.device for parameter in model.parameters()} == {"strict"}
    np.testing.assert_array_equal(model(ids).numpy(), wanted)
    state = model.state_dict()
    assert all(type(value) is np.ndarray for value in state.values())
    model.load_state_dict(state)
    model.to("cpu")
    assert all(type(parameter.array) is np.ndarray for parameter in model.parameters())
    np.testing.assert_array_equal(model(ids).numpy(), wanted)


# -- layers ------------------------------------------------------------------------------------------------------------


def test_layers_call_their_operations() -> None:
    x = Tensor(np.random.default_rng(0).standard_normal((3, 4)))
    linear = nn.Linear(4, 2, dtype="float64")
    linear.bias.copy_([1.0, 2.0])
    np.testing.assert_array_equal(linear(x).numpy(), ops.linear(x, linear.weight, linear.bias).numpy())
    assert nn.Linear(4, 2, bias=False).bias is None
    norm = nn.LayerNorm(4, eps=0.5, dtype="float64")
    np.testing.assert_array_equal(norm(x).numpy(), ops.layer_norm(x, norm.weight, norm.bias, eps=0.5).numpy())
    np.testing.assert_array_equal(norm.eval()(x, dropout=0.5).numpy(), norm(x).numpy())
    table = nn.Embedding(5, 3, padding_id=2)
    assert table.weight.numpy()[2].tolist() == [0.0, 0.0, 0.0]
    table(np.array([[0, 2]])).sum().backward()
    assert table.weight.grad.numpy().tolist() == [[1.0] * 3, [0.0] * 3, [0.0] * 3, [0.0] * 3, [0.0] * 3]


def test_initial_values() -> None:
    """Spreads within five standard deviations of the estimate from 40,000 numbers: 5 / sqrt(80,000) = 1.8 %."""
    linear = nn.Linear(100, 400)
    assert linear.weight.shape == (400, 100)
    assert linear.weight.numpy().std() == pytest.approx(0.1, rel=0.018)
    assert not linear.bias.numpy().any()
    assert nn.Linear(100, 400, std=0.02).weight.numpy().std() == pytest.approx(0.02, rel=0.018)
    assert nn.Embedding(400, 100, std=0.02).weight.numpy().std() == pytest.approx(0.02, rel=0.018)
    norm = nn.LayerNorm(3)
    assert norm.weight.numpy().tolist() == [1.0] * 3
    assert norm.bias.numpy().tolist() == [0.0] * 3


def test_unset_weights_draw_nothing() -> None:
    minitl.manual_seed(3)
    with nn.unset_weights():
        layer = nn.Linear(4, 3)
    assert layer.weight.shape == (3, 4)
    assert default_generator().call == 0
    nn.Linear(4, 3)
    assert default_generator().call == 1


def test_dtype_changes_precision_and_not_the_numbers() -> None:
    minitl.manual_seed(3)
    single = nn.Linear(4, 3).weight.numpy()
    minitl.manual_seed(3)
    np.testing.assert_array_equal(nn.Linear(4, 3, dtype="float64").weight.numpy().astype(np.float32), single)


def test_parameters_in_nested_containers_are_found() -> None:
    class Grid(nn.Module):
        def __init__(self) -> None:
            self.rows = [[nn.Parameter(np.zeros(1)), nn.Linear(1, 1)], ({"deep": nn.Parameter(np.zeros(2))},)]
            self.constant = Tensor(np.zeros(3))

    names = [name for name, _ in Grid().named_parameters()]
    assert names == ["rows.0.0", "rows.1.0.deep", "rows.0.1.weight", "rows.0.1.bias"]


def test_a_tree_that_leads_back_up_ends() -> None:
    class Node(nn.Module):
        def __init__(self, parent: nn.Module | None = None) -> None:
            self.weight = nn.Parameter(np.zeros(1))
            self.parent = parent
            self.child = Node(self) if parent is None else None

    node = Node()
    assert [name for name, _ in node.named_modules()] == ["", "child"]
    assert [name for name, _ in node.named_parameters()] == ["weight", "child.weight"]
    node.eval()
    assert not node.child.training
    assert len(list(node.modules())) == 2


def test_a_module_used_twice_comes_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            self.first = nn.Linear(1, 1)
            self.second = self.first

    assert [name for name, _ in Twice().named_modules()] == ["", "first"]
