"""clip_grad_norm and step in the parts that a CUDA graph takes, where kernels run; see also test_step_in_parts.py."""

from __future__ import annotations

import numpy as np
import pytest
from simulator import DEVICE, here, needs_device

import minitl
from minitl import Tensor, nn, ops, optim
from minitl.kernels.launch import bfloat16
from minitl.precision import short_copy

pytestmark = needs_device


class Model(nn.Module):
    """Parameters of lengths that no pack of four fits, one of which takes no part."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(7, 5), nn.Linear(5, 3)
        self.unused = nn.Linear(2, 2)


def prepared(torch_compat: bool, dtype: str = "float32") -> tuple[Model, optim.AdamW]:
    minitl.manual_seed(1)
    model = Model().to(DEVICE, dtype=dtype)
    return model, optim.AdamW(optim.decay_groups(model, weight_decay=0.1), lr=0.01, torch_compat=torch_compat)


def backward(model: Model, step: int) -> None:
    dtype = model.first.weight.dtype
    x = Tensor(np.random.default_rng(step).normal(size=(4, 7)).astype(dtype), device=DEVICE)
    ops.sum(model.second(ops.tanh(model.first(x))) ** 2).backward()


@pytest.mark.parametrize("torch_compat", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("max_norm", [0.3, 1e6], ids=["clipped", "not clipped"])
def test_it_equals_the_plain_step(torch_compat: bool, dtype: str, max_norm: float) -> None:
    model, optimizer = prepared(torch_compat, dtype)
    plain, plain_optimizer = prepared(torch_compat, dtype)
    for step in range(4):
        optimizer.groups[0].lr = plain_optimizer.groups[0].lr = 0.01 * (step + 1)
        backward(model, step)
        optimizer.prepare_step()
        norm, written = optimizer.launch_step(max_norm)
        optimizer.count_step(written)
        optimizer.zero_grad()
        backward(plain, step)
        wanted = optim.clip_grad_norm(plain.parameters(), max_norm)
        plain_optimizer.step()
        plain_optimizer.zero_grad()
        assert len(written) == 4
        np.testing.assert_allclose(here(norm), wanted, rtol=1e-12 if dtype == "float64" else 1e-6)
    # the factor of the clipping is rounded once more on the device
    tolerance = 1e-12 if dtype == "float64" else 1e-6
    for (name, found), (_, right) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        np.testing.assert_allclose(found.numpy(), right.numpy(), rtol=tolerance, atol=tolerance, err_msg=name)
        assert found._version.value == right._version.value, name


def test_the_shadow_is_the_rounded_parameter() -> None:
    """Only of those that were asked for one; what asks afterwards need not round again."""
    model, optimizer = prepared(False)
    short_copy(model.first.weight, bfloat16())
    for step in range(2):
        backward(model, step)
        optimizer.prepare_step()
        _, written = optimizer.launch_step(1.0)
        optimizer.count_step(written)
        optimizer.zero_grad()
        weight, other = model.first.weight, model.second.weight
        assert weight._shadow is not None
        assert weight._shadow.version == weight._version.value
        np.testing.assert_array_equal(here(weight._shadow.array), weight.numpy().astype(bfloat16()))
        assert other._shadow is None or not other._shadow.exists


def test_gradients_that_are_not_finite_change_nothing() -> None:
    model, optimizer = prepared(False)
    before = {name: parameter.numpy().copy() for name, parameter in model.named_parameters()}
    backward(model, 0)
    optimizer.buffer.gradients[0] = np.inf
    optimizer.prepare_step()
    norm, _ = optimizer.launch_step(1.0)
    assert not np.isfinite(here(norm)).any()
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(parameter.numpy(), before[name], err_msg=name)


def gradients(with_optimizer: bool, compute: str, passes: int) -> dict[str, np.ndarray]:
    minitl.manual_seed(2)
    width = 32
    layers = [nn.Linear(width, 16), nn.Linear(width, 8), nn.Linear(24, width)]
    norm, table = nn.LayerNorm(width), nn.Embedding(9, width)
    for module in (*layers, norm, table):
        module.to(DEVICE)
    parameters = [layer.weight for layer in layers] + [layer.bias for layer in layers]
    parameters += [norm.weight, norm.bias, table.weight]
    optimizer = optim.AdamW(parameters, lr=0.1) if with_optimizer else None
    ids = Tensor(np.arange(20) % 9, device=DEVICE)
    with minitl.precision(compute, device=DEVICE):
        for number in range(passes):
            x = table(ids)
            for _ in range(2):  # every parameter is used twice
                y = ops.linear_joined(
                    norm(x), [layer.weight for layer in layers[:2]], [layer.bias for layer in layers[:2]]
                )
                x = x + ops.linear(y, layers[2].weight, layers[2].bias)
            ops.sum(ops.astype(x, "float32") * (number + 1.0)).backward()
    found = {str(number): parameter.grad for number, parameter in enumerate(parameters)}
    assert optimizer is None or all(slot.written for slot in optimizer.buffer.slots)
    return {name: gradient.numpy() for name, gradient in found.items() if gradient is not None}


@pytest.mark.parametrize(("compute", "tolerance"), [("float32", 1e-6), ("bfloat16", 1e-6)])
@pytest.mark.parametrize("passes", [1, 2])
def test_gradients_written_into_slots_are_those_of_the_tape(compute: str, tolerance: float, passes: int) -> None:
    """Added where they lie, in the order in which they come: the same sums, rounded in between as often."""
    wanted = gradients(False, compute, passes)
    found = gradients(True, compute, passes)
    assert len(found) == len(wanted) == 9
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=tolerance * np.abs(values).max(), err_msg=name)
