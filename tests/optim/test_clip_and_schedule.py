"""Clipping by the global norm, and learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl import Tensor, optim


def with_gradients(*gradients: Any, dtype: str = "float64") -> list[Tensor]:
    parameters = []
    for gradient in gradients:
        parameter = Tensor(np.zeros(np.shape(gradient), dtype), requires_grad=True)
        parameter.grad = Tensor(np.array(gradient, dtype))
        parameters.append(parameter)
    return parameters


@pytest.mark.parametrize("with_optimizer", [False, True])
@pytest.mark.parametrize("max_norm", [1.0, 4.9, 5.0, 100.0])
def test_clip(max_norm: float, with_optimizer: bool) -> None:
    parameters = [*with_gradients([[3.0], [0.0]], 4.0), Tensor(np.zeros(2), requires_grad=True)]
    if with_optimizer:
        optim.SGD(parameters)
    norm = optim.clip_grad_norm(parameters, max_norm)
    assert type(norm) is float
    assert norm == 5.0
    factor = min(1.0, max_norm / (5.0 + 1e-6))
    assert parameters[0].grad.numpy().tolist() == [[3.0 * factor], [0.0]]
    assert parameters[1].grad.item() == 4.0 * factor
    assert parameters[2].grad is None


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8), st.floats(1e-3, 1e3))
def test_afterwards_the_norm_is_at_most_the_limit(values: list[float], max_norm: float) -> None:
    parameters = with_gradients(values)
    norm = optim.clip_grad_norm(parameters, max_norm)
    assert norm == pytest.approx(math.sqrt(math.fsum(v * v for v in values)), rel=1e-14)  # 8 squares, one root
    after = optim.clip_grad_norm(parameters, 1e9)
    assert after <= max_norm * (1 + 1e-14)
    assert after == pytest.approx(min(norm, norm * max_norm / (norm + 1e-6)), rel=1e-14)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_what_is_not_finite_is_reported_and_left(bad: float) -> None:
    parameters = with_gradients([1.0, bad], [2.0])
    assert not math.isfinite(optim.clip_grad_norm(parameters, 1.0))
    assert parameters[1].grad.numpy().tolist() == [2.0]
    assert parameters[0].grad.numpy()[0] == 1.0


def test_float32_gradients_keep_their_dtype() -> None:
    parameters = with_gradients([3e20, 4e20], dtype="float32")
    # the gradients are float32's nearest, within 6e-8; their squares would overflow it
    assert optim.clip_grad_norm(parameters, 1.0) == pytest.approx(5e20, rel=1e-7)
    assert parameters[0].grad.dtype == np.float32
    np.testing.assert_allclose(parameters[0].grad.numpy(), [0.6, 0.8], rtol=3e-7)  # three float32 roundings


def test_nothing_to_clip_and_mistakes() -> None:
    assert optim.clip_grad_norm([Tensor([1.0], requires_grad=True)], 1.0) == 0.0
    assert optim.clip_grad_norm(iter(with_gradients([3.0], [4.0])), 1.0) == 5.0
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="max_norm must be positive"):
            optim.clip_grad_norm([], wrong)
    with pytest.raises(TypeError, match="a list of parameters, not a single tensor"):
        optim.clip_grad_norm(with_gradients([3.0])[0], 1.0)


def rates(steps: int, **options: Any) -> list[list[float]]:
    groups = [optim.ParameterGroup(with_gradients([1.0]), lr=1.0), optim.ParameterGroup(with_gradients([1.0]), lr=10.0)]
    optimizer = optim.SGD(groups)
    schedule = optim.Schedule(optimizer, **options)
    seen = []
    for _ in range(steps):
        seen.append([group.lr for group in optimizer.groups])
        schedule.step()
    return seen


def test_linear() -> None:
    wanted = [0, 0.5, 1, 0.8, 0.6, 0.4, 0.2, 0, 0]
    # a factor k / 5 times the peak: one rounding of each
    np.testing.assert_allclose(rates(9, total=7, warmup=2), [[f, 10 * f] for f in wanted], rtol=1e-15)
    assert [rate for rate, _ in rates(3, total=2)] == [1.0, 0.5, 0.0]


def test_cosine() -> None:
    wanted = [0, 0.25, 0.5, 0.75, *(0.5 * (1 + math.cos(math.pi * k / 6)) for k in range(7)), 0, 0]
    # 1 + cos loses 1e-16 of 1 where it nears 0
    np.testing.assert_allclose([r for r, _ in rates(13, total=10, warmup=4, shape="cosine")], wanted, atol=1e-15)


@given(st.integers(1, 50), st.data(), st.sampled_from([optim.linear_factor, optim.cosine_factor]))
def test_every_schedule_rises_then_falls_to_zero(total: int, data: st.DataObject, factor: Any) -> None:
    warmup = data.draw(st.integers(0, total))
    values = [factor(step, warmup, total) for step in range(total + 3)]
    assert all(0 <= value <= 1 for value in values)
    assert values[:warmup] == sorted(values[:warmup])
    assert values[warmup:] == sorted(values[warmup:], reverse=True)
    assert max(values) == 1.0 or warmup == total
    assert warmup == 0 or values[0] == 0.0
    assert values[total:] == [0.0] * 3


def test_wrong_schedules() -> None:
    optimizer = optim.SGD(with_gradients([1.0]))
    with pytest.raises(ValueError, match=r"one of \['constant', 'cosine', 'linear'\], not 'step'"):
        optim.Schedule(optimizer, 10, shape="step")
    for warmup in (-1, 11):
        with pytest.raises(ValueError, match=r"warmup must be between 0 and total \(10\)"):
            optim.Schedule(optimizer, 10, warmup=warmup)
    assert optimizer.groups[0].lr == 1e-3, "a refused schedule changes no rate"
