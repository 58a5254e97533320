"""AdamW's step in three parts, of which a CUDA graph holds the second: the numbers of ``clip_grad_norm`` and ``step``.

On the simulator, which runs the very kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulator import needs_device

from minitl import Tensor, optim
from minitl.kernels.launch import bfloat16
from minitl.optim import AdamW
from minitl.precision import short_copy

pytestmark = needs_device
SHAPES = [(41, 33), (33,), (7, 8), (1,)]  # 1,353 elements: the last do not fill a pack
#: A norm that no gradient here has, so that nothing is clipped.
LARGE = 1e9


class Training:
    """Parameters on the simulator, and AdamW."""

    def __init__(self, dtype: str = "float32", torch_compat: bool = False) -> None:
        random = np.random.default_rng(0)
        self.parameters = [
            Tensor(random.normal(size=shape).astype(dtype), requires_grad=True, device="cudasim") for shape in SHAPES
        ]
        groups = [
            optim.ParameterGroup(self.parameters[:2], weight_decay=0.1),
            optim.ParameterGroup(self.parameters[2:], weight_decay=0.0, lr=3e-3),
        ]
        self.optimizer = AdamW(groups, lr=1e-2, torch_compat=torch_compat)
        self.random = random

    def give_gradients(self, *, without: int | None = None, factor: float = 1.0) -> None:
        for number, parameter in enumerate(self.parameters):
            gradient = (factor * self.random.normal(size=parameter.shape)).astype(parameter.dtype)
            if number != without:
                parameter.grad = Tensor(gradient, device="cudasim")

    def take_step(self, max_norm: float) -> float:
        norm = optim.clip_grad_norm(self.parameters, max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def take_step_in_parts(self, max_norm: float) -> float:
        self.optimizer.prepare_step()
        norm, written = self.optimizer.launch_step(max_norm)
        self.optimizer.zero_grad()
        self.optimizer.count_step(written)
        return float(norm[0])

    def state(self) -> dict[str, Any]:
        optimizer = self.optimizer
        return {
            "parameters": optimizer.buffer.parameters,
            "first moment": optimizer._first_moment,
            "second moment": optimizer._second_moment,
            "steps": np.array(optimizer._steps),
            "versions": np.array([parameter._version.value for parameter in self.parameters]),
        }


def check(found: Training, wanted: Training) -> None:
    """Bit for bit."""
    for (name, one), other in zip(found.state().items(), wanted.state().values(), strict=True):
        np.testing.assert_array_equal(one, other, name)


@pytest.mark.parametrize("torch_compat", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_equals_step(dtype: str, torch_compat: bool) -> None:
    """Bit for bit, over steps in which one or the other parameter has no gradient; learning rates may change."""
    whole, parts = Training(dtype, torch_compat), Training(dtype, torch_compat)
    for number, without in enumerate([None, 2, None, 0, None]):
        for one in (whole, parts):
            one.give_gradients(without=without)
            one.optimizer.groups[0].lr = 1e-2 / (number + 1)
        assert parts.take_step_in_parts(LARGE) == pytest.approx(whole.take_step(LARGE), rel=1e-14)
        check(parts, whole)
    assert whole.optimizer._steps == [4, 5, 4, 5]
    assert all(parameter.grad is None for parameter in parts.parameters)


@pytest.mark.parametrize("max_norm", [0.5, 3.0])
def test_clipping_equals_clip_grad_norm(max_norm: float) -> None:
    whole, parts = Training(), Training()
    for _ in range(4):
        for one in (whole, parts):
            one.give_gradients(factor=2)
        norm = parts.take_step_in_parts(max_norm)
        # sums of the same float64 squares, in another order
        assert norm == pytest.approx(whole.take_step(max_norm), rel=1e-14)
        assert norm > 10 * max_norm
        # and a factor that is rounded to float32, where 1e-14 is lost
        check(parts, whole)


def test_gradients_that_are_small_enough_are_not_clipped() -> None:
    """The factor is 1, exactly."""
    whole, parts = Training(), Training()
    for one in (whole, parts):
        one.give_gradients(factor=1e-3)
    norm = parts.take_step_in_parts(1.0)
    assert norm < 0.1
    whole.optimizer.step()
    check(parts, whole)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_where_the_norm_is_not_finite_nothing_changes(value: float) -> None:
    training = Training()
    training.give_gradients()
    training.take_step_in_parts(1.0)
    shadow = short_copy(training.parameters[0], bfloat16())
    before = {name: array.copy() for name, array in training.state().items()} | {"shadow": shadow.copy()}
    training.give_gradients()
    training.parameters[2].grad.array[3, 4] = value  # type: ignore[union-attr]
    assert not np.isfinite(training.take_step_in_parts(1.0))
    after = training.state() | {"shadow": shadow}
    for name in ("parameters", "first moment", "second moment", "shadow"):
        np.testing.assert_array_equal(after[name], before[name], name)
    # the numbers on the host move on, which a graph's replay could not prevent; the next bias correction is that of one
    # step more
    np.testing.assert_array_equal(after["steps"], before["steps"] + 1)


def test_the_shadow_is_the_rounded_parameter() -> None:
    training = Training()
    watched = [training.parameters[0], training.parameters[2]]  # the others have no copy, and none is made
    for group in training.optimizer.groups:
        group.lr = 0.3  # of every number the rounded one changes, too
    for number in range(3):
        if number == 1:
            for parameter in watched:
                short_copy(parameter, bfloat16())
        training.give_gradients()
        training.take_step_in_parts(1.0)
        for parameter in watched if number else []:
            shadow = parameter._shadow
            assert shadow is not None
            assert shadow.version == parameter._version.value  # so it will not be made again
            np.testing.assert_array_equal(shadow.array, parameter.array.astype(bfloat16()))
            assert short_copy(parameter, bfloat16()) is shadow.array
    assert [parameter._shadow.exists for parameter in training.parameters] == [True, False, True, False]
    untouched = training.optimizer.buffer.segments[1]
    np.testing.assert_array_equal(training.optimizer.buffer.shadow[slice(untouched[0], sum(untouched))], 0)


def test_a_plain_step_makes_the_shadow_stale() -> None:
    """It does not write it; the next one who asks for it gets a new one."""
    training = Training()
    parameter = training.parameters[0]
    old = short_copy(parameter, bfloat16()).copy()
    training.give_gradients()
    training.take_step(1.0)
    new = short_copy(parameter, bfloat16())
    assert (new != old).any()
    np.testing.assert_array_equal(new, parameter.array.astype(bfloat16()))


def test_steps_of_both_kinds_mix() -> None:
    whole, mixed = Training(), Training()
    for number in range(4):
        for one in (whole, mixed):
            one.give_gradients()
        whole.take_step(LARGE)
        (mixed.take_step_in_parts if number % 2 else mixed.take_step)(LARGE)
        check(mixed, whole)


def test_gradients_that_were_clipped_before() -> None:
    """``clip_grad_norm`` leaves a factor beside the buffer, which the kernels must not overlook."""
    whole, parts = Training(), Training()
    for one in (whole, parts):
        one.give_gradients()
        optim.clip_grad_norm(one.parameters, 2.0)
    assert parts.take_step_in_parts(1.0) == pytest.approx(2.0, rel=1e-6)  # the factor is rounded to float32
    whole.take_step(1.0)
    # two factors, each multiplied in and rounded, or first with each other: 4 roundings, 8 of a square
    for (name, one), other in zip(parts.state().items(), whole.state().values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=8 * 2.0**-24, atol=2.0**-24, err_msg=name)


def test_without_any_gradient_nothing_changes() -> None:
    training = Training()
    training.give_gradients()
    training.take_step_in_parts(1.0)
    before = {name: array.copy() for name, array in training.state().items()}
    assert training.take_step_in_parts(1.0) == 0
    for name, array in training.state().items():
        np.testing.assert_array_equal(array, before[name], name)


def test_the_order_of_the_parts() -> None:
    training = Training()
    training.give_gradients()
    with pytest.raises(RuntimeError, match="launch_step comes after prepare_step"):
        training.optimizer.launch_step(1.0)


def test_prepare_step_refuses_what_step_refuses() -> None:
    training = Training()
    training.give_gradients()
    AdamW(training.parameters)
    for take in (training.optimizer.prepare_step, training.optimizer.step):
        with pytest.raises(RuntimeError, match="given to a newer optimizer"):
            take()


def test_tables_are_made_once_for_each_selection() -> None:
    training = Training()
    for without in (None, 1, None, 1):
        training.give_gradients(without=without)
        training.take_step_in_parts(1.0)
    recordable = training.optimizer._recordable
    assert recordable is not None
    assert len(recordable._tables) == 2
