"""What would lose something without a word is refused, and what can be kept is kept."""

import copy

import numpy as np
import pytest

from minitl import Tensor, nn, ops, optim


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "tanh", "erf", "mean"])
def test_integers_are_not_promoted_silently(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name} needs a float tensor, not int64; convert it with .astype"):
        getattr(ops, name)(Tensor(np.array([1, 2, 3])))


def test_integers_are_not_divided() -> None:
    with pytest.raises(TypeError, match="divide needs a float tensor"):
        Tensor(np.array([1, 2, 3])) / 2


def test_lists_take_the_tensors_dtype() -> None:
    for dtype in (np.float32, np.float64):
        assert ops.add(Tensor(np.ones(2, dtype)), [1.0, 2.0]).dtype == dtype
    assert ops.add(Tensor(np.array([1, 2])), [1, 2]).dtype == np.int64


def test_copying_floats_into_integers_is_refused() -> None:
    whole = Tensor(np.array([1, 2]))
    with pytest.raises(TypeError, match="would lose"):
        whole.copy_(np.array([1.5, 2.5]))
    whole.copy_(np.array([3, 4], dtype=np.int32))
    np.testing.assert_array_equal(whole.numpy(), [3, 4])


def test_a_deep_copy_is_independent_of_the_optimizer() -> None:
    layer = nn.Linear(2, 2)
    optimizer = optim.SGD(layer.parameters(), lr=1.0)
    layer(Tensor(np.ones((1, 2), np.float32))).sum().backward()
    copied = copy.deepcopy(layer)
    before = copied.weight.numpy().copy()
    assert copied.weight.grad is not None
    np.testing.assert_array_equal(copied.weight.grad.numpy(), layer.weight.grad.numpy())
    optimizer.step()
    optimizer.zero_grad()
    np.testing.assert_array_equal(copied.weight.numpy(), before)
    assert not np.array_equal(layer.weight.numpy(), before)
    assert copied.weight.grad is not None
    optim.SGD(copied.parameters(), lr=1.0).step()
    np.testing.assert_array_equal(copied.weight.numpy(), layer.weight.numpy())


def test_only_leaves_are_copied_deeply() -> None:
    computed = Tensor([1.0], requires_grad=True) * 2
    with pytest.raises(RuntimeError, match="leaf"):
        copy.deepcopy(computed)


def test_parameters_in_dictionaries_are_found() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            self.heads = {"ner": nn.Linear(2, 3), "pos": nn.Linear(2, 4, bias=False)}
            self.scales = {"ner": nn.Parameter(np.ones(1, np.float32))}

    names = [name for name, _ in Heads().named_parameters()]
    assert names == ["scales.ner", "heads.ner.weight", "heads.ner.bias", "heads.pos.weight"]


def test_a_state_may_be_made_of_the_modules_own_arrays() -> None:
    module = nn.Linear(2, 2)
    module.other = nn.Linear(2, 2)
    state = module.state_dict()
    first, second = state["weight"].copy(), state["other.weight"].copy()
    assert not np.array_equal(first, second)
    module.load_state_dict({**state, "weight": state["other.weight"], "other.weight": state["weight"]})
    np.testing.assert_array_equal(module.weight.numpy(), second)
    np.testing.assert_array_equal(module.other.weight.numpy(), first)


def test_converting_a_module_between_forward_and_backward_is_noticed() -> None:
    layer = nn.Linear(2, 2)
    x = Tensor(np.ones((1, 2), np.float32), requires_grad=True)
    loss = layer(x).sum()
    layer.to(dtype="float64")
    with pytest.raises(RuntimeError, match="overwritten"):
        loss.backward()


def test_a_copied_optimizer_does_not_pretend_to_train_a_copied_module() -> None:
    layer = nn.Linear(2, 2)
    copied, optimizer = copy.deepcopy((layer, optim.SGD(layer.parameters(), lr=1.0)))
    copied(Tensor(np.ones((1, 2), np.float32))).sum().backward()
    with pytest.raises(RuntimeError, match="build the optimizer again"):
        optimizer.step()


@pytest.mark.parametrize("axes", [(0, 2), (0, 0), (0,), (-3, 0)])
def test_axes_out_of_range_are_refused(axes: tuple[int, ...]) -> None:
    x = Tensor(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"axe|axis"):
        x.transpose(axes)
    for join in (ops.concatenate, ops.stack):
        with pytest.raises(ValueError, match="axis"):
            join([x, x], axis=4)
