"""What would lose something without a word is refused, and what can be kept is kept."""

import copy
import pickle

import numpy as np
import pytest

import minitl
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


@pytest.mark.parametrize("index", [((0, 0),), (range(1), None), ((1, 1, 0),)], ids=str)
def test_sequences_in_an_index_add_the_gradients_of_repeats(index: tuple[object, ...]) -> None:
    x = Tensor(np.arange(3.0), requires_grad=True)
    x[index].sum().backward()
    expected = np.zeros(3)
    np.add.at(expected, np.asarray(index[0]), 1.0)
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), expected)


@pytest.mark.parametrize("with_optimizer", [False, True])
@pytest.mark.parametrize("change", ["accumulate", "clip", "assign"])
def test_a_graph_over_a_gradient_notices_that_it_changed(with_optimizer: bool, change: str) -> None:
    p = Tensor(np.array([2.0, 3.0]), requires_grad=True)
    w = Tensor(np.ones(2), requires_grad=True)
    if with_optimizer:
        optim.SGD([p], lr=1.0)
    (p * p).sum().backward()
    assert p.grad is not None
    z = (p.grad * w).sum()
    if change == "accumulate":
        (p * p).sum().backward()
    elif change == "clip":
        optim.clip_grad_norm([p], 1.0)
    else:
        p.grad = Tensor(np.ones(2))
    if change == "assign" and not with_optimizer:  # a new array: the old gradient is intact
        z.backward()
        np.testing.assert_array_equal(w.grad.numpy(), [4.0, 6.0])
    else:
        with pytest.raises(RuntimeError, match="overwritten"):
            z.backward()


@pytest.mark.parametrize("layer_kind", ["linear", "embedding"])
def test_a_graph_over_a_slot_notices_the_layers_write(layer_kind: str) -> None:
    weight = Tensor(np.ones((2, 2)), requires_grad=True)
    optim.SGD([weight], lr=1.0)

    def loss() -> Tensor:
        x = Tensor(np.ones((1, 2)))
        y = ops.linear(x, weight) if layer_kind == "linear" else ops.embedding(weight, np.array([0, 1]))
        return y.sum()

    loss().backward()
    assert weight.grad is not None
    stale = (weight.grad * Tensor(np.ones((2, 2)), requires_grad=True)).sum()
    loss().backward()
    with pytest.raises(RuntimeError, match="overwritten"):
        stale.backward()


def test_a_pickled_optimizer_does_not_pretend_to_train_a_pickled_module() -> None:
    layer = nn.Linear(2, 2)
    copied, optimizer = pickle.loads(pickle.dumps((layer, optim.SGD(layer.parameters(), lr=1.0))))
    np.testing.assert_array_equal(copied.weight.numpy(), layer.weight.numpy())
    copied(Tensor(np.ones((1, 2), np.float32))).sum().backward()
    with pytest.raises(RuntimeError, match="build the optimizer again"):
        optimizer.step()


def test_rebinding_a_parameters_array_is_noticed() -> None:
    p = Tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=1.0)
    (p * 2).sum().backward()
    p.array = p.array - 1
    with pytest.raises(RuntimeError, match="build the optimizer again"):
        optimizer.step()


def test_dtypes_a_tensor_cannot_hold_do_not_come_in_by_the_back_door() -> None:
    with pytest.raises(TypeError, match="not float16"):
        Tensor([1.0]).astype("float16")
    with pytest.raises(TypeError, match="power needs a float tensor"):
        Tensor(np.array([1, 2])) ** 0.5
    np.testing.assert_array_equal((Tensor(np.array([1, 2])) ** 2).numpy(), [1, 4])


def test_arrays_are_no_gradients() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(TypeError, match=r"wrap it: Tensor\(array\)"):
        x.grad = np.ones(2)  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"wrap it: Tensor\(array\)"):
        (x * 2).backward(np.ones(2))  # type: ignore[arg-type]


def test_ids_labels_and_indices_are_kept_as_they_were() -> None:
    ids = np.array([0, 1])
    for forward in (
        lambda x: ops.embedding(x, ids).sum(),
        lambda x: x[ids].sum(),
        lambda x: ops.cross_entropy(x[:2], ids),
        lambda x: ops.scatter_rows(x[:2], ids, 3).sum(),
    ):
        gradients = []
        for overwrite in (False, True):
            ids[:] = [0, 1]
            x = Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
            loss = forward(x)
            if overwrite:
                ids[:] = [1, 1]
            loss.backward()
            assert x.grad is not None
            gradients.append(x.grad.numpy())
        np.testing.assert_array_equal(*gradients)


def test_arrays_saved_in_a_dictionary_are_watched() -> None:
    class Square(minitl.Function):
        def forward(self, x: np.ndarray) -> np.ndarray:
            self.saved = {"x": [x]}
            return x * x

        def backward(self, grad_y: np.ndarray) -> np.ndarray:
            return 2 * self.saved["x"][0] * grad_y

    x = Tensor([3.0], requires_grad=True)
    y = Square.apply(x)
    x.copy_([0.0])
    with pytest.raises(RuntimeError, match="overwritten"):
        y.backward()


@pytest.mark.parametrize("padding_id", [-1, 3])
def test_a_padding_row_must_exist(padding_id: int) -> None:
    with pytest.raises(ValueError, match="padding_id"):
        nn.Embedding(3, 2, padding_id=padding_id)
    with pytest.raises(ValueError, match="padding_id"):
        ops.embedding(Tensor(np.ones((3, 2))), np.array([0]), padding_id=padding_id)


def test_misread_arguments_are_refused() -> None:
    p = Tensor([3.0, 4.0], requires_grad=True)
    with pytest.raises(ValueError, match="two numbers"):
        optim.AdamW([p], betas=(0.9,))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="whole numbers"):
        optim.Schedule(optim.SGD([p]), 10, warmup=0.1)  # type: ignore[arg-type]
    (p * p).sum().backward()
    assert optim.clip_grad_norm([p, p], 1.0) == 10.0  # twice in the list, counted once
    logits, labels = Tensor(np.zeros((1, 2))), np.array([0])
    with pytest.raises(ValueError, match="negative"):
        ops.cross_entropy(logits, labels, class_weights=np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="no gradient"):
        ops.cross_entropy(logits, labels, class_weights=Tensor([1.0, 1.0], requires_grad=True))
