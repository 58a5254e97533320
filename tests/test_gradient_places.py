"""Gradients that are written where they belong: into an optimizer's slot, or on top of what is there already.

With and without an optimizer, whose buffer has the slots, a backward pass gives the same gradients, bit for bit, and
nobody's array changes under his hands.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from simulator import needs_device

import minitl
from minitl import Function, Tensor, ops, optim
from minitl.autograd import WRITTEN
from minitl.models import BertConfig, BertForTokenClassification, PackedBatch

DEVICES = ["cpu", pytest.param("cudasim", marks=needs_device)]
each_device = pytest.mark.parametrize("device", DEVICES)
Arrays = dict[str, np.ndarray | None]

# -- layers ------------------------------------------------------------------------------------------------------------

#: Shapes of the parameters of each operation, beside x (6, 8).
PARAMETERS: dict[str, list[tuple[int, ...]]] = {
    "linear": [(8, 8), (8,)],
    "linear_many": [(8, 8), (8, 8), (8,), (8,)],
    "linear_joined": [(8, 8), (8, 8), (8,), (8,)],
    "layer_norm": [(8,), (8,)],
    "gelu": [(8,)],
}


def apply(name: str, x: Tensor, p: list[Tensor]) -> Tensor:
    """One use of the parameters."""
    if name == "linear":
        return ops.linear(x, *p)
    if name == "linear_many":
        first, second = ops.linear_many(x, p[:2], p[2:])
        return first * second
    if name == "linear_joined":
        return ops.linear_joined(x, p[:2], p[2:])[:, 4:12]
    return ops.layer_norm(x, *p, eps=1e-5) if name == "layer_norm" else ops.gelu(x, *p)


def gradients(name: str, device: str, uses: int, frozen: int | None, *, slots: bool, passes: int = 2) -> Arrays:
    """The gradients of x and of the parameters after some passes, which accumulate."""
    random = np.random.default_rng(0)
    made = [Tensor(random.normal(size=shape).astype(np.float32), device=device) for shape in PARAMETERS[name]]
    for number, parameter in enumerate(made):
        parameter.requires_grad = number != frozen
    x = Tensor(random.normal(size=(6, 8)).astype(np.float32), requires_grad=True, device=device)
    trained = [parameter for parameter in made if parameter.requires_grad]
    optimizer = optim.AdamW([*trained, x]) if slots else None
    if optimizer is not None:  # what an earlier step has left there must not show
        optimizer.buffer.gradients[...] = np.nan
        for slot in optimizer.buffer.slots:
            slot.mark_written()
            slot.forget()
    for number in range(passes):
        y = x
        for _ in range(uses):
            y = y * 0.5 + apply(name, y, made)  # what comes back to y comes from two sides
        (y * y * (number + 1.0)).sum().backward()
    named = {"x": x} | {f"parameter {number}": parameter for number, parameter in enumerate(made)}
    return {key: None if one.grad is None else one.grad.numpy().copy() for key, one in named.items()}


def kernels(device: str) -> Any:
    """The reference on the CPU, whose sums have one order, too."""
    return minitl.use_kernels("reference") if device == "cpu" else nullcontext()


@each_device
@pytest.mark.parametrize("uses", [1, 3])
@pytest.mark.parametrize(
    ("name", "frozen"), [(name, f) for name, p in PARAMETERS.items() for f in (None, *range(len(p)))]
)
def test_slots_change_no_gradient(name: str, frozen: int | None, uses: int, device: str) -> None:
    """One use and several of the same parameters, two passes, and each of the parameters frozen."""
    with kernels(device):
        wanted = gradients(name, device, uses, frozen, slots=False)
        found = gradients(name, device, uses, frozen, slots=True)
    for key, gradient in wanted.items():
        if gradient is None:
            assert key == f"parameter {frozen}"
            assert found[key] is None, key
        else:
            assert np.abs(gradient).max() > 0
            np.testing.assert_array_equal(found[key], gradient, key)


@each_device
def test_one_tensor_as_weight_and_bias(device: str) -> None:
    """Both gradients belong into one slot: written one after the other, the first would be lost."""
    results = []
    for slots in (False, True):
        random = np.random.default_rng(0)
        both = Tensor(random.normal(size=8).astype(np.float32), requires_grad=True, device=device)
        x = Tensor(random.normal(size=(6, 8)).astype(np.float32), device=device)
        weights = Tensor(random.normal(size=(6, 8)).astype(np.float32), device=device)
        if slots:
            optim.AdamW([both])
        (ops.layer_norm(x, both, both, eps=1e-5) * weights).sum().backward()
        assert both.grad is not None
        results.append(both.grad.numpy().copy())
    np.testing.assert_array_equal(*results)


# -- into_slots and take, by themselves --------------------------------------------------------------------------------


class Scale(Function):
    """y = a x for a number a, whose gradient is written into its slot where there is one; notes what it was told."""

    accumulated: list[bool]

    def forward(self, x: Any, a: Any, *, log: list[Any]) -> Any:
        self.x, self.a, self.log = x, a, log
        return x * a

    def backward(self, grad_y: Any) -> Any:
        def write(outs: list[Any], accumulate: bool) -> None:
            self.log.append(accumulate)
            if accumulate:
                outs[0] += (grad_y * self.x).sum()
            else:
                outs[0][...] = (grad_y * self.x).sum()

        grad_x = grad_y * self.a
        if self.into_slots([1], write):
            return grad_x, WRITTEN
        self.log.append("returned")
        return grad_x, (grad_y * self.x).sum().reshape(1)


def leaf(values: Any) -> Tensor:
    return Tensor(np.array(values, np.float64), requires_grad=True)


def values(x: Tensor) -> Any:
    assert x.grad is not None
    return x.grad.numpy().tolist()


def test_the_first_writes_and_the_others_add() -> None:
    x, a, log = leaf([1.0, 2.0]), leaf([3.0]), []
    optimizer = optim.SGD([a], lr=0.1)
    version = optimizer.buffer.slots[0].tensor._version.value
    (Scale.apply(x, a, log=log) + Scale.apply(x, a, log=log)).sum().backward()
    assert log == [False, True]
    assert values(a) == [6.0]
    assert optimizer.buffer.slots[0].tensor._version.value > version
    Scale.apply(x, a, log=log).sum().backward()
    optimizer.zero_grad()
    Scale.apply(x, a, log=log).sum().backward()
    assert log == [False, True, True, False]
    assert values(a) == [3.0]


def test_without_a_slot_it_is_returned() -> None:
    x, log = leaf([1.0, 2.0]), []
    for a in (leaf([3.0]), leaf([2.0]) * 2):  # a leaf without an optimizer; a computed tensor
        Scale.apply(x, a, log=log).sum().backward()
    frozen = Tensor(np.array([3.0]))
    Scale.apply(x, frozen, log=log).sum().backward()
    assert log == ["returned"] * 3
    assert frozen.grad is None


def test_a_clipped_gradient_is_added_to_as_it_is() -> None:
    """Clipping leaves a factor in the slot, which must not scale what comes later."""
    x, a, log = leaf([3.0, 4.0]), leaf([1.0]), []
    optim.SGD([a], lr=0.1)  # gives it the slot
    Scale.apply(x, a, log=log).sum().backward()
    optim.clip_grad_norm([a], 3.5)
    factor = 3.5 / (7 + 1e-6)
    Scale.apply(x, a, log=log).sum().backward()
    assert log == [False, True]
    assert values(a) == pytest.approx([7 * factor + 7], rel=1e-15)


class Pair(Function):
    """y = a + b for numbers, both gradients written at once."""

    def forward(self, a: Any, b: Any, *, log: list[Any]) -> Any:
        self.log = log
        return a + b

    def backward(self, grad_y: Any) -> Any:
        def write(outs: list[Any], accumulate: bool) -> None:
            for out in outs:
                out[...] = grad_y + (out if accumulate else 0)

        self.log.append(self.into_slots([0, 1], write))
        return (WRITTEN, WRITTEN) if self.log[-1] else (grad_y, grad_y)


def test_slots_of_which_only_some_hold_a_gradient_are_not_written_together() -> None:
    a, b, log = leaf([1.0]), leaf([1.0]), []
    optimizer = optim.SGD([a, b], lr=0.1)
    a.sum().backward()
    Pair.apply(a, b, log=log).sum().backward()
    assert (values(a), values(b), log) == ([2.0], [1.0], [False])
    Pair.apply(a, b, log=log).sum().backward()
    assert (values(a), values(b), log) == ([3.0], [2.0], [False, True])
    optimizer.zero_grad()
    Pair.apply(a, a, log=log).sum().backward()
    assert (values(a), log) == ([2.0], [False, True, False])


class Taking(Function):
    """y = 2 x, whose backward adds to what x has been sent from elsewhere, if it may."""

    def forward(self, x: Any, *, log: list[Any]) -> Any:
        self.log = log
        return 2 * x

    def backward(self, grad_y: Any) -> Any:
        there = self.take(0)
        self.log.append(there is not None)
        if there is None:
            return 2 * grad_y
        there += 2 * grad_y
        return there


def test_what_has_arrived_is_taken() -> None:
    """y = h + 2 f(h): when Taking's turn comes, the other branch has sent its gradient to h, and holds it no longer."""
    x, log = leaf([1.0, 2.0]), []
    h = x * 3
    (h * 5 + Taking.apply(h.exp().log(), log=log) * 7).sum().backward()
    assert values(x) == pytest.approx([3 * (5 + 14)] * 2)
    assert log == [False]  # nothing has come to the logarithm but this
    h, log = x * 3, []
    x.grad = None
    (Taking.apply(h, log=log) * 7 + h * 5).sum().backward()
    assert values(x) == [3 * (5 + 14)] * 2
    assert log in ([True], [False])  # either branch may be the first


@pytest.mark.parametrize("swap", [False, True])
def test_taking_gives_the_same_sum_whichever_branch_is_first(swap: bool) -> None:
    x, log = leaf([1.0, 2.0]), []
    h = x * 3
    branches = [Taking.apply(h, log=log) * 7, h * 5]
    (branches[swap] + branches[not swap]).sum().backward()
    assert values(x) == [57.0, 57.0]
    taken_once = x * 3
    ys = [Taking.apply(taken_once, log=log) for _ in range(3)]
    x.grad = None
    (ys[0] + ys[1] * 2 + ys[2] * 3).sum().backward()
    assert values(x) == [36.0, 36.0]


def test_some_branch_is_taken() -> None:
    """Else the test above would see nothing."""
    logs: list[list[Any]] = [[], []]
    for swap, log in enumerate(logs):
        h = leaf([1.0, 2.0]) * 3
        branches = [Taking.apply(h, log=log) * 7, h * 5]
        (branches[swap] + branches[not swap]).sum().backward()
    assert sorted(logs) == [[False], [True]]


class Same(Function):
    """y = a + b for arrays: sends the very array that it got to both."""

    def forward(self, a: Any, b: Any) -> Any:
        return a + b

    def backward(self, grad_y: Any) -> Any:
        return grad_y, grad_y


def test_an_array_that_somebody_else_holds_is_not_taken() -> None:
    """What Same sends to h it also sends to Taking's output, where it is still needed."""
    held: list[np.ndarray] = []

    class Holding(Function):
        """y = x; keeps what it sent back."""

        def forward(self, x: Any) -> Any:
            return x.copy()

        def backward(self, grad_y: Any) -> Any:
            held.append(grad_y * 1)
            return held[-1]

    for swap in (False, True):
        x, log = leaf([1.0, 2.0]), []
        h = x * 3
        branches = [Taking.apply(h, log=log) * 7, Holding.apply(h)]
        (branches[swap] + branches[not swap]).sum().backward()
        assert values(x) == [45.0, 45.0]
        assert log == [False]
        assert held.pop().tolist() == [1.0, 1.0]
        x, log = leaf([1.0, 2.0]), []
        h = x * 3
        pair = [h, Taking.apply(h, log=log)]
        Same.apply(pair[swap], pair[not swap]).sum().backward()
        assert values(x) == [9.0, 9.0]


def test_the_callers_gradient_is_not_written() -> None:
    for swap in (False, True):
        x = leaf([1.0, 2.0])
        h = x * 3
        given = np.array([1.0, 10.0])
        pair = [h, Taking.apply(h, log=[])]
        Same.apply(pair[swap], pair[not swap]).backward(Tensor(given))
        assert given.tolist() == [1.0, 10.0]
        assert values(x) == [9.0, 90.0]


def test_a_view_is_not_taken() -> None:
    """To write it would be to write a part of another array."""

    class Halves(Function):
        """Two halves of an array, whose gradients go back in one array each time."""

        def forward(self, x: Any) -> Any:
            return x[:2].copy(), x[2:].copy()

        def backward(self, *grads: Any) -> Any:
            return np.concatenate(grads)

    class Spread(Function):
        """y = [a, b]; the gradients it sends are views of one array."""

        def forward(self, a: Any, b: Any) -> Any:
            return np.concatenate([a, b])

        def backward(self, grad_y: Any) -> Any:
            return grad_y[:2], grad_y[2:]

    for swap in (False, True):
        x, log = leaf([1.0, 2.0, 3.0, 4.0]), []
        a, b = Halves.apply(x)
        branches = [Spread.apply(a, b), Spread.apply(Taking.apply(a, log=log), b)]
        (branches[swap] * 1 + branches[not swap] * 1).sum().backward()
        assert values(x) == [3.0, 3.0, 2.0, 2.0]
        assert log == [False]


def test_a_leaf_and_a_frozen_input_have_nothing_to_take() -> None:
    x, log = leaf([1.0]), []
    (Taking.apply(x, log=log) + x * 5).sum().backward()
    assert (values(x), log) == ([7.0], [False])


# -- a model -----------------------------------------------------------------------------------------------------------

CONFIG = BertConfig(vocab_size=30, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
                    max_position_embeddings=40, num_labels=5)  # fmt: skip


def batch() -> PackedBatch:
    random, lengths = np.random.default_rng(0), np.array([7, 17, 1])
    tokens, offsets = lengths.sum(), np.concatenate(([0], np.cumsum(lengths)))
    positions = np.arange(tokens) - np.repeat(offsets[:-1], lengths)
    ids, labels = random.integers(0, 30, tokens), random.integers(0, 5, tokens)
    return PackedBatch(ids, positions, np.zeros(tokens, np.int64), offsets, labels)


def of_model(compute: str, frozen: Callable[[str], bool], *, slots: bool, passes: int) -> Arrays:
    minitl.manual_seed(3)
    model = BertForTokenClassification(CONFIG).to("cudasim")
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not frozen(name)
    if slots:
        optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad])
    with minitl.precision(compute, device="cudasim"):
        for _ in range(passes):
            model.loss(batch()).loss.backward()
    return {name: None if p.grad is None else p.grad.numpy().copy() for name, p in model.named_parameters()}


@needs_device
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("frozen", ["nothing", "bert.embeddings", "key.weight", "bias"])
@pytest.mark.parametrize("passes", [1, 2])
def test_a_models_gradients(compute: str, frozen: str, passes: int) -> None:
    """Dropout and all, in both precisions; frozen: a part at the bottom, one of three joined weights, all biases."""
    wanted = of_model(compute, lambda name: frozen in name, slots=False, passes=passes)
    found = of_model(compute, lambda name: frozen in name, slots=True, passes=passes)
    assert sum(gradient is None for gradient in wanted.values()) == sum(frozen in name for name in wanted)
    for name, gradient in wanted.items():
        if gradient is None:
            assert found[name] is None, name
        elif name.endswith("embeddings.weight") and passes > 1:
            # a row's tokens are added to what is there one group after the other, not their sum: 4 roundings
            np.testing.assert_allclose(found[name], gradient, rtol=0, atol=2.0**-22 * np.abs(gradient).max())
        else:
            np.testing.assert_array_equal(found[name], gradient, name)


@needs_device
@pytest.mark.parametrize(("compute", "rounding", "count"), [("float32", 2.0**-24, 2), ("bfloat16", 2.0**-8, 4)])
def test_what_layers_take_changes_no_gradient(
    compute: str, rounding: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The residual gradients of two layers, which the matrix products add: one rounding each less, or another order."""
    taken: list[bool] = []
    take = Function.take

    def noted(self: Function, index: int) -> Any:
        array = take(self, index)
        taken.append(array is not None)
        return array

    monkeypatch.setattr(Function, "take", noted)
    found = of_model(compute, lambda name: False, slots=True, passes=1)
    assert sum(taken) == count, taken  # by each layer's feed-forward, and by the joined products of its attention
    monkeypatch.setattr(Function, "take", lambda self, index: None)
    wanted = of_model(compute, lambda name: False, slots=True, passes=1)
    largest = max(np.abs(gradient).max() for gradient in wanted.values() if gradient is not None)
    for name, gradient in wanted.items():
        # 4 roundings on the way down, and those are multiplied by weights and statistics of size 1; the keys' biases
        # have no gradient but rounding
        scale = largest if name.endswith("key.bias") else np.abs(gradient).max()  # type: ignore[arg-type]
        np.testing.assert_allclose(found[name], gradient, rtol=0, atol=16 * rounding * scale, err_msg=name)  # type: ignore[arg-type]
