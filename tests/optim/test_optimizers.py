"""AdamW and SGD against the formulas of their docstrings, written out once more, parameter by parameter, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from minitl import Tensor, nn, optim

SHAPES = [(3, 2), (4,), ()]
# 200 steps that each round a few times at 1.1e-16, of parameters that stay below 10 in size
TOLERANCE = 1e-12


def leaf(values: Any) -> Tensor:
    return Tensor(np.array(values, dtype=np.float64), requires_grad=True)


def gradient(step: int, number: int, p: np.ndarray) -> np.ndarray | None:
    """A gradient that depends on where the parameter is; missing now and then for one of them."""
    if number == 1 and step % 3 == 1:
        return None
    noise = np.random.default_rng([step, number]).standard_normal(p.shape)
    return np.asarray(p - 1 + 0.5 * noise)


def run(optimizer: optim.Optimizer, parameters: list[Tensor], steps: int, rates: Any = None) -> list[np.ndarray]:
    for step in range(steps):
        if rates is not None:
            optimizer.groups[0].lr = rates(step)
        for number, parameter in enumerate(parameters):
            given = gradient(step, number, parameter.numpy())
            parameter.grad = None if given is None else Tensor(given)
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.numpy() for parameter in parameters]


def start() -> list[np.ndarray]:
    return [np.asarray(np.random.default_rng(number).standard_normal(shape)) for number, shape in enumerate(SHAPES)]


@pytest.mark.parametrize("options", [{}, {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}])
def test_adamw(options: dict[str, Any]) -> None:
    lr, (beta1, beta2), eps, decay = (
        options.get("lr", 1e-3),
        options.get("betas", (0.9, 0.999)),
        options.get("eps", 1e-8),
        options.get("weight_decay", 0.01),
    )
    wanted = start()
    for number, p in enumerate(wanted):
        m, v, t = np.zeros(p.shape), np.zeros(p.shape), 0
        for step in range(200):
            g = gradient(step, number, p)
            if g is None:
                continue  # neither decay nor moments nor its own count of steps moves
            t += 1
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g**2
            p = p - lr * ((m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps) + decay * p)
        wanted[number] = p
    parameters = [leaf(p) for p in start()]
    for actual, reference in zip(run(optim.AdamW(parameters, **options), parameters, 200), wanted, strict=True):
        np.testing.assert_allclose(actual, reference, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.1, "weight_decay": 0.05},
        {"lr": 0.05, "momentum": 0.9},
        {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.05, "nesterov": True},
    ],
)
def test_sgd(options: dict[str, Any]) -> None:
    lr, decay = options.get("lr", 1e-3), options.get("weight_decay", 0.0)
    momentum, nesterov = options.get("momentum", 0.0), options.get("nesterov", False)
    wanted = start()
    for number, p in enumerate(wanted):
        b: Any = None
        for step in range(200):
            g = gradient(step, number, p)
            if g is None:
                continue
            g = g + decay * p
            b = g if b is None else momentum * b + g
            p = p - lr * (g + momentum * b if nesterov else b)
        wanted[number] = p
    parameters = [leaf(p) for p in start()]
    for actual, reference in zip(run(optim.SGD(parameters, **options), parameters, 200), wanted, strict=True):
        np.testing.assert_allclose(actual, reference, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_float32_follows_float64(kind: str) -> None:
    """50 steps of rate 0.01: 50 roundings of values near 1 (6e-8 each), ten times that for what gradients feed back."""
    ends = []
    for dtype in ("float32", "float64"):
        parameter = Tensor(np.linspace(-1, 2, 7).astype(dtype), requires_grad=True)
        optimizer = (
            optim.AdamW([parameter], lr=0.01) if kind == "AdamW" else optim.SGD([parameter], lr=0.01, momentum=0.9)
        )
        for _ in range(50):
            ((parameter - 1) ** 2).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        assert parameter.dtype == dtype
        ends.append(parameter.numpy())
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=3e-5)
    assert np.abs(ends[1] - np.linspace(-1, 2, 7)).max() > 0.3, "it has moved"


def test_groups_bring_their_own_rates() -> None:
    a, b, c = (leaf([1.0]) for _ in range(3))
    optimizer = optim.SGD([optim.ParameterGroup([a], lr=0.5), b, optim.ParameterGroup([c], weight_decay=1.0)], lr=0.1)
    assert [(group.lr, group.weight_decay) for group in optimizer.groups] == [(0.5, 0.0), (0.1, 1.0), (0.1, 0.0)]
    for parameter in (a, b, c):
        parameter.grad = Tensor(np.array([1.0]))
    optimizer.step()
    assert [p.item() for p in (a, b, c)] == [0.5, 0.9, 0.8]
    optimizer.groups[0].lr = 0.25
    optimizer.step()
    assert a.item() == 0.25


def test_a_group_given_is_not_changed() -> None:
    group = optim.ParameterGroup([leaf([1.0])])
    optim.AdamW([group], lr=0.3)
    assert (group.lr, group.weight_decay) == (None, None)


def test_none_segment_keeps_value_and_moments() -> None:
    """Two steps for x, with one in between for y alone, equal two steps in a row."""
    ends = []
    for pause in (False, True):
        x, y = leaf([1.0]), leaf([1.0])
        optimizer = optim.AdamW([x, y], lr=0.1, weight_decay=0.5)
        for step in range(2):
            if step == 1 and pause:
                optimizer.zero_grad()
                before = x.item()
                (y * y).sum().backward()
                optimizer.step()
                assert x.item() == before
            optimizer.zero_grad()
            (x * x).sum().backward()
            optimizer.step()
        ends.append(x.item())
    assert ends[0] == ends[1]


@pytest.mark.parametrize("kind", [optim.AdamW, optim.SGD])
def test_all_frozen(kind: Any) -> None:
    optimizer = kind([Tensor(np.ones(2))])
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.AdamW(p, lr=-1.0), "lr must not be negative"),
        (lambda p: optim.AdamW(p, lr=math.nan), "lr must not be negative"),
        (lambda p: optim.AdamW(p, betas=(1.0, 0.9)), r"betas must be two numbers in \[0, 1\)"),
        (lambda p: optim.AdamW(p, betas=(0.9, -0.1)), r"betas must be two numbers in \[0, 1\)"),
        (lambda p: optim.AdamW(p, eps=-1e-8), "eps must not be negative"),
        (lambda p: optim.AdamW(p, weight_decay=-0.1), "weight_decay must not be negative"),
        (lambda p: optim.SGD(p, momentum=1.0), r"momentum must be in \[0, 1\)"),
        (lambda p: optim.SGD(p, nesterov=True), "nesterov needs a momentum"),
    ],
)
def test_wrong_options(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make([leaf([1.0])])


def test_decay_groups() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            self.table = nn.Embedding(3, 2)
            self.dense = nn.Linear(2, 2)
            self.LayerNorm = nn.LayerNorm(2)
            self.layers = [nn.LayerNorm(2), nn.Linear(2, 2, bias=False)]

    model = Model()
    decayed, exempt = optim.decay_groups(model, 0.3)
    assert (decayed.weight_decay, exempt.weight_decay) == (0.3, 0.0)
    assert decayed.names == ["table.weight", "dense.weight", "layers.1.weight"]
    assert exempt.names == ["dense.bias", "LayerNorm.weight", "LayerNorm.bias", "layers.0.weight", "layers.0.bias"]
    parameters = dict(model.named_parameters())
    for group in (decayed, exempt):
        assert [id(p) for p in group.parameters] == [id(parameters[name]) for name in group.names]
    optimizer = optim.AdamW([decayed, exempt], lr=0.1, weight_decay=9.0)
    assert [group.weight_decay for group in optimizer.groups] == [0.3, 0.0]
    for parameter in model.parameters():
        parameter.grad = Tensor(np.zeros(parameter.shape, np.float32))
    before = {name: p.numpy().copy() for name, p in parameters.items()}
    optimizer.step()
    for name, parameter in parameters.items():
        factor = 0.97 if name in decayed.names else 1.0
        np.testing.assert_allclose(parameter.numpy(), before[name] * factor, rtol=3e-7)  # float32: three roundings
