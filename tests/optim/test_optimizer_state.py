"""An optimizer's state, put into a new one, goes on as if there had been one all the time; a class of loss likewise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minitl
from minitl import Tensor, nn, ops, optim

MAKERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "adamw": lambda groups: optim.AdamW(groups, lr=0.1),
    "sgd": lambda groups: optim.SGD(groups, lr=0.1),
    "momentum": lambda groups: optim.SGD(groups, lr=0.1, momentum=0.9),
    "nesterov": lambda groups: optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True),
}


class Words(nn.Module):
    """A table of which each step sees some rows, a map, and a parameter that the last steps alone use."""

    def __init__(self) -> None:
        minitl.manual_seed(3)
        self.table = nn.Parameter(np.arange(21, dtype=np.float32).reshape(7, 3) / 10)
        self.dense = nn.Linear(3, 2)
        self.late = nn.Parameter(np.ones(2, dtype=np.float32))

    def forward(self, step: int) -> Tensor:
        y = self.dense(ops.embedding(self.table, np.array([step % 3, 2])))
        return ((y * self.late if step >= 4 else y) ** 2).sum()


def train(model: Words, optimizer: optim.Optimizer, steps: range) -> None:
    for step in steps:
        model(step).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("stop", range(7))
def test_a_stop_at_any_step_changes_no_bit(kind: str, stop: int) -> None:
    def build(model: Words) -> optim.Optimizer:
        return MAKERS[kind](optim.decay_groups(model, 0.01))

    whole, first, second = Words(), Words(), Words()
    whole_optimizer = build(whole)
    train(whole, whole_optimizer, range(7))
    first_optimizer = build(first)
    train(first, first_optimizer, range(stop))
    second.load_state_dict(first.state_dict())
    second_optimizer = build(second)
    second_optimizer.load_state_dict(first_optimizer.state_dict())
    train(second, second_optimizer, range(stop, 7))
    for name, values in whole.state_dict().items():
        assert values.tobytes() == second.state_dict()[name].tobytes(), name
    expected, found = whole_optimizer.state_dict(), second_optimizer.state_dict()
    assert expected.keys() == found.keys()
    assert all(expected[name].tobytes() == found[name].tobytes() for name in expected)


def test_the_state_is_a_copy_under_the_parameters_names() -> None:
    model = Words()
    optimizer = optim.AdamW(optim.decay_groups(model, 0.01), lr=0.1)
    train(model, optimizer, range(2))
    state = optimizer.state_dict()
    before = state["first_moment.table"].copy()
    train(model, optimizer, range(2, 3))
    np.testing.assert_array_equal(state["first_moment.table"], before)
    assert state["first_moment.dense.weight"].shape == (2, 3)
    assert state["steps.late"] == 0
    np.testing.assert_array_equal(state["touched_rows.table"], [True, True, True, False, False, False, False])
    assert optim.SGD([nn.Parameter(np.ones(2)), Tensor(np.ones(2), requires_grad=True)]).names == ["0", "1"]


def test_a_state_that_does_not_fit_is_refused_whole() -> None:
    model = Words()
    optimizer = optim.AdamW(optim.decay_groups(model, 0.01), lr=0.1)
    train(model, optimizer, range(2))
    state = optimizer.state_dict()
    wrong = {**state, "first_moment.late": np.ones(3), "steps.nobody": np.array(1)}
    del wrong["second_moment.table"]
    with pytest.raises(ValueError, match=r"late: .* \(2,\), got \(3,\)\n.*missing.*table\n.*unknown.*nobody"):
        optimizer.load_state_dict(wrong)
    assert all(values.tobytes() == optimizer.state_dict()[name].tobytes() for name, values in state.items())


def test_a_schedule_goes_to_any_step() -> None:
    def build() -> optim.Schedule:
        return optim.Schedule(optim.SGD([Tensor([1.0], requires_grad=True)], lr=2.0), 9, warmup=3, shape="cosine")

    walked, jumped = build(), build()
    for step in range(10):
        jumped.go_to(step)
        assert jumped.optimizer.groups[0].lr == walked.optimizer.groups[0].lr
        assert jumped.step_number == walked.step_number == step
        walked.step()
