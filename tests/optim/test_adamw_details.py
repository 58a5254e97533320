"""AdamW in float64 against a simulation of single numbers with Python's floats: 1,000 steps of every odd gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from minitl import Tensor, optim

SHAPES = [(), (1,), (2,), (3,), (0,), (1, 1), (2, 1), (1, 3), (2, 2), (5,), (1, 2, 2), (2, 0, 3)]
STEPS = 1000
# Each step rounds a few times at 1.1e-16 of the parameter or the change; a thousand of those, all to one side, would be
# 5e-13. Measured: 2e-14.
TOLERANCE = 1e-12

# What the gradients of parameter ``number`` are like, besides the noise that all have.
ZERO, TINY, MISSING, HUGE = 8, 5, 9, 7


def gradients() -> dict[int, np.ndarray]:
    """For each parameter (STEPS, *shape): noise around a pull that changes its sign slowly."""
    result = {}
    for number, shape in enumerate(SHAPES):
        noise = np.random.default_rng(number).standard_normal((STEPS, *shape))
        pull = np.sin(np.arange(STEPS) / 100 + number).reshape(-1, *(1,) * len(shape))
        result[number] = 10.0 ** (number % 4 - 2) * (noise + pull)
    result[ZERO] = 0 * result[ZERO]
    result[TINY] = 1e-170 * result[TINY]  # squares underflow: the divisor is eps alone
    result[HUGE] = 1e150 * result[HUGE]  # squares are near the end of float64's range
    return result


def is_missing(number: int, step: int) -> bool:
    return number == MISSING and step % 3 != 0


def simulate(p: float, series: list[float | None], lr: float, decay: float, options: dict[str, Any]) -> float:
    """The docstring's formulas for one number; None is a step without a gradient."""
    (beta1, beta2), eps = options["betas"], options["eps"]
    m = v = 0.0
    t = 0
    for g in series:
        if g is None:
            continue
        t += 1
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        p = p - lr * (m / (1 - beta1**t) / (math.sqrt(v / (1 - beta2**t)) + eps) + decay * p)
    return p


SETTINGS: list[dict[str, Any]] = [
    {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
    {"lr": 5e-5, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0},
    {"lr": 2e-2, "betas": (0.8, 0.95), "eps": 1e-8, "weight_decay": 0.1},
    {"lr": 1e-2, "betas": (0.0, 0.9), "eps": 1e-3, "weight_decay": 0.05},
    {"lr": 1e-6, "betas": (0.95, 0.0), "eps": 1e-12, "weight_decay": 0.01},
    {"lr": 1e-3, "betas": (0.4, 0.5), "eps": 1e-8, "weight_decay": 1.0},
]


# torch_compat interpolates m in two ways, below and above beta1 = 0.5
CASES = [*((number, False) for number in range(len(SETTINGS))), (0, True), (5, True)]


@pytest.mark.parametrize(("number", "torch_compat"), CASES)
def test_a_thousand_steps_of_every_kind_of_gradient(number: int, torch_compat: bool) -> None:
    """12 shapes; one parameter's gradient is 0, one's tiny, one's huge, one's often missing; odd ones do not decay."""
    options = SETTINGS[number]
    starts = [np.asarray(np.random.default_rng(i).standard_normal(shape)) for i, shape in enumerate(SHAPES)]
    parameters = [Tensor(start.copy(), requires_grad=True) for start in starts]
    groups = [optim.ParameterGroup(parameters[0::2]), optim.ParameterGroup(parameters[1::2], weight_decay=0.0)]
    optimizer = optim.AdamW(groups, **options, torch_compat=torch_compat)
    series = gradients()
    for step in range(STEPS):
        optimizer.zero_grad()
        for i, parameter in enumerate(parameters):
            if not is_missing(i, step):
                parameter.grad = Tensor(np.asarray(series[i][step]))
        optimizer.step()
    for i, (start, parameter) in enumerate(zip(starts, parameters, strict=True)):
        decay = 0.0 if i % 2 else options["weight_decay"]
        wanted = np.empty_like(start)
        for index in np.ndindex(start.shape):
            given = [None if is_missing(i, step) else float(series[i][(step, *index)]) for step in range(STEPS)]
            wanted[index] = simulate(float(start[index]), given, options["lr"], decay, options)
        scale = np.maximum(np.abs(wanted), np.abs(start))  # a parameter may pass 0
        assert (np.abs(parameter.numpy() - wanted) <= TOLERANCE * scale).all(), SHAPES[i]


@pytest.mark.parametrize("torch_compat", [False, True], ids=["ours", "torch"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_gradient_that_is_not_finite_spoils_its_own_element_only(value: float, torch_compat: bool) -> None:
    """From its step on the element is NaN, as inf / sqrt(inf) is; it does not pass for trained."""
    x, y = (Tensor(np.ones(3), requires_grad=True) for _ in range(2))
    optimizer = optim.AdamW([x, y], lr=0.1, torch_compat=torch_compat)
    given: list[list[float | None]] = [[1.0, 2.0, 3.0], [1.0, value, 3.0], [1.0, 2.0, 3.0]]
    with np.errstate(invalid="ignore"):
        for step in range(3):
            x.grad = Tensor(np.array([given[element][step] for element in range(3)]))
            y.grad = Tensor(np.array([1.0, 1.0, 1.0]))
            optimizer.step()
            assert np.isnan(x.numpy()).tolist() == [False, step >= 1, False]
    options = {"betas": (0.9, 0.999), "eps": 1e-8}
    for element in (0, 2):
        assert x.numpy()[element] == pytest.approx(simulate(1.0, given[element], 0.1, 0.01, options), rel=TOLERANCE)
    assert y.numpy().tolist() == pytest.approx([simulate(1.0, [1.0] * 3, 0.1, 0.01, options)] * 3, rel=TOLERANCE)


@pytest.mark.parametrize("wrong", [None, 0, 1, "yes", np.array(True)])
def test_torch_compat_is_a_bool(wrong: Any) -> None:
    with pytest.raises(TypeError, match="torch_compat must be True or False, got"):
        optim.AdamW([Tensor(np.ones(1), requires_grad=True)], torch_compat=wrong)


def test_torch_compat_reaches_the_kernel() -> None:
    """lr * decay = 3e-8 of 1.5 is less than half a unit in its last place (1.2e-7); torch's factor is 1 - 6e-8."""
    ends = []
    for torch_compat in (False, True):
        x = Tensor(np.array([1.5], np.float32), requires_grad=True)
        optimizer = optim.AdamW([x], lr=3e-6, weight_decay=0.01, torch_compat=torch_compat)
        x.grad = Tensor(np.array([0.0], np.float32))
        optimizer.step()
        ends.append(x.item())
    assert ends == [1.5, 1.5 - 2**-23]
