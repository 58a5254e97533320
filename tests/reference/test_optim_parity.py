"""Optimizers, gradient clipping and schedules against torch.optim and transformers, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from minitl import Tensor, optim  # noqa: E402
from minitl.optim import ParameterGroup, Schedule  # noqa: E402

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("default")]  # their warnings are not ours to fix

STEPS = 1000
# Relative. Each step rounds a few times, 1e-16 of the parameter, and a thousand such errors of either sign add up to
# some 1e-13; the order of operations may differ, the formula may not: eps inside the root, say, shows at once.
TOLERANCE = 1e-12
SHAPES = ((), (1,), (7,), (33, 5), (2, 3, 4), (130,))
SKIPPED = 4  # the parameter that sometimes has no gradient


class Twins:
    """The same parameters in torch and minitl: a group that decays, one that does not, one with its own rate."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        values = [rng.standard_normal(shape) for shape in SHAPES]
        self.rng = rng
        self.scales = [10.0**power for power in (-6, 0, 3, -2, 1, -9)]  # of the gradients; AdamW's eps is 1e-8
        self.theirs = [torch.nn.Parameter(torch.tensor(value)) for value in values]
        self.ours = [Tensor(value.copy(), requires_grad=True) for value in values]

    def their_groups(self) -> list[dict[str, Any]]:
        return [
            {"params": self.theirs[:3], "weight_decay": 0.1},
            {"params": self.theirs[3:5], "weight_decay": 0.0},
            {"params": self.theirs[5:], "lr": 3e-3},
        ]

    def our_groups(self) -> list[ParameterGroup]:
        return [
            ParameterGroup(self.ours[:3], weight_decay=0.1),
            ParameterGroup(self.ours[3:5], weight_decay=0.0),
            ParameterGroup(self.ours[5:], lr=3e-3),
        ]

    def set_gradients(self, step: int) -> None:
        """A pull towards a target, so that errors feed back, and noise; every third step one parameter has none."""
        for number, (their, our) in enumerate(zip(self.theirs, self.ours, strict=True)):
            if number == SKIPPED and step % 3 == 0:
                their.grad, our.grad = None, None
                continue
            noise = self.rng.standard_normal(SHAPES[number])
            for parameter, values in ((their, their.detach().numpy()), (our, our.numpy())):
                gradient = self.scales[number] * (np.tanh(values - 1) + noise)
                parameter.grad = torch.tensor(gradient) if parameter is their else Tensor(np.asarray(gradient))

    def error(self) -> float:
        """The largest relative difference: of each element, where the parameter is not passing through 0."""
        worst = 0.0
        for their, our in zip(self.theirs, self.ours, strict=True):
            expected = their.detach().numpy()
            scale = np.maximum(np.abs(expected), 1e-2 * np.abs(expected).max())
            worst = max(worst, float((np.abs(our.numpy() - expected) / scale).max()))
        return worst


def run(twins: Twins, their_optimizer: Any, our_optimizer: Any, shape: str | None, clip: float | None) -> float:
    """Take STEPS steps with both, comparing after each; return the largest relative error."""
    schedules = None
    if shape is not None:
        make = getattr(transformers, f"get_{shape}_schedule_with_warmup")
        schedules = make(their_optimizer, 100, STEPS), Schedule(our_optimizer, STEPS, warmup=100, shape=shape)
    worst = 0.0
    for step in range(STEPS):
        our_optimizer.zero_grad()
        twins.set_gradients(step)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(twins.theirs, clip)
            optim.clip_grad_norm(twins.ours, clip)
        their_optimizer.step()
        our_optimizer.step()
        for schedule in schedules or ():
            schedule.step()
        worst = max(worst, twins.error())
    starts = Twins(0).ours
    moved = [np.abs(our.numpy() - start.numpy()).max() for our, start in zip(twins.ours, starts, strict=True)]
    assert min(moved) > 1e-3
    print(f"largest relative error {worst:.1e}")
    return worst


@pytest.mark.parametrize("shape", [None, "linear", "cosine"])
@pytest.mark.parametrize("clip", [None, 5.0])
def test_adamw_equals_torch_over_1000_steps(shape: str | None, clip: float | None) -> None:
    twins = Twins(0)
    settings = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.02}
    theirs = torch.optim.AdamW(twins.their_groups(), foreach=False, fused=False, **settings)
    ours = optim.AdamW(twins.our_groups(), **settings)
    assert run(twins, theirs, ours, shape, clip) <= TOLERANCE


def test_adamw_over_a_plain_list_decays_everything_as_torch_does() -> None:
    twins = Twins(0)
    settings = {"lr": 2e-2, "betas": (0.8, 0.95), "eps": 1e-6}  # and the default weight_decay of both
    theirs = torch.optim.AdamW(twins.theirs, foreach=False, fused=False, **settings)
    assert run(twins, theirs, optim.AdamW(twins.ours, **settings), None, None) <= TOLERANCE


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.5, "weight_decay": 0.01, "nesterov": True},
        {"weight_decay": 0.01},
    ],
)
def test_sgd_equals_torch_over_1000_steps(settings: dict[str, Any]) -> None:
    twins = Twins(0)
    twins.scales = [1.0] * len(SHAPES)
    theirs = torch.optim.SGD(twins.their_groups(), lr=1e-2, foreach=False, **settings)
    ours = optim.SGD(twins.our_groups(), lr=1e-2, **settings)
    assert run(twins, theirs, ours, "linear", None) <= TOLERANCE


@pytest.mark.parametrize("max_norm", [1e-8, 0.5, 1.0, 1e3, 1e9])
def test_clipping_equals_torch(max_norm: float) -> None:
    twins = Twins(3)
    twins.set_gradients(0)  # step 0: one parameter has no gradient
    expected = torch.nn.utils.clip_grad_norm_(twins.theirs, max_norm, foreach=False).item()
    norm = optim.clip_grad_norm(twins.ours, max_norm)
    assert norm == pytest.approx(expected, rel=TOLERANCE)
    for their, our in zip(twins.theirs, twins.ours, strict=True):
        assert (their.grad is None) == (our.grad is None)
        if their.grad is not None:
            np.testing.assert_allclose(our.grad.numpy(), their.grad.numpy(), rtol=TOLERANCE, atol=0)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@pytest.mark.parametrize(("warmup", "total"), [(0, 10), (3, 10), (10, 10), (1, 1), (0, 1), (100, 1000)])
def test_schedules_equal_those_of_transformers(shape: str, warmup: int, total: int) -> None:
    twins = Twins(0)
    theirs = torch.optim.SGD(twins.their_groups(), lr=0.3)
    ours = optim.SGD(twins.our_groups(), lr=0.3)
    their_schedule = getattr(transformers, f"get_{shape}_schedule_with_warmup")(theirs, warmup, total)
    our_schedule = Schedule(ours, total, warmup=warmup, shape=shape)
    for step in range(total):
        # the same formula in the same order, so a few roundings at most; the cosine ends within a rounding of 0
        expected = [group["lr"] for group in theirs.param_groups]
        assert [group.lr for group in ours.groups] == pytest.approx(expected, rel=1e-15, abs=1e-17), step
        theirs.step()
        their_schedule.step()
        our_schedule.step()
    # After the last step ours stands at 0, also where all steps warmed up and transformers' cosine would begin.
    assert [group.lr for group in ours.groups] == pytest.approx([0.0] * len(ours.groups), abs=1e-17)
