"""The check that all other checks rest on: it must pass what is right and find what is wrong, and say where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minitl import Function, Tensor, ops
from minitl.random import Generator
from minitl.testing import check_gradients


def with_backward(backward: Callable[[Any, Any], Any]) -> Callable[[Tensor], Tensor]:
    """x^3 with another derivative."""

    class Cube(Function):
        def forward(self, x: Any) -> Any:
            self.x = x
            return x**3

        def backward(self, grad_y: Any) -> Any:
            return backward(grad_y, self.x)

    return Cube.apply  # type: ignore[return-value]


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (65,), (5, 14), (0,), (2, 0)])
def test_the_right_rule_passes(shape: tuple[int, ...]) -> None:
    point = np.random.default_rng(0).standard_normal(shape)
    check_gradients(with_backward(lambda grad, x: 3 * grad * x * x), point)


WRONG: dict[str, Callable[[Any, Any], Any]] = {
    "a factor": lambda grad, x: 2.999 * grad * x * x,
    "a factor, barely": lambda grad, x: (3 + 1e-6) * grad * x * x,
    "a sign": lambda grad, x: -3 * grad * x * x,
    "zero": lambda grad, x: 0 * grad,
    "none": lambda grad, x: None,
    "not a number": lambda grad, x: np.nan * grad,
    "one element": lambda grad, x: 3 * grad * x * x + 0.01 * (np.arange(x.size) == x.size - 1).reshape(x.shape),
    "grad forgotten": lambda grad, x: 3 * x * x,
    "sum over neighbours": lambda grad, x: 3 * np.roll(grad, 1) * x * x,
}


@pytest.mark.parametrize("shape", [(3,), (2, 3), (65,), (8, 16)])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rule_is_found(name: str, shape: tuple[int, ...]) -> None:
    point = np.random.default_rng(0).uniform(0.5, 2, shape)
    with pytest.raises(AssertionError, match="wrong gradient of the output"):
        check_gradients(with_backward(WRONG[name]), point)


def test_the_message_names_everything() -> None:
    def wrong(grad: Any, x: Any) -> Any:
        gradient = 3 * grad * x * x
        gradient[1, 0] += 0.5 * grad[1, 0]
        return gradient

    call = with_backward(wrong)
    with pytest.raises(AssertionError) as caught:
        check_gradients(lambda y, x: y + call(x), np.ones((2, 2)), np.full((2, 2), 2.0))
    message = str(caught.value)
    for part in (
        "<lambda>",
        "argument 1, of shape (2, 2), at index (1, 0)",
        "backward says         12.5",
        "finite difference is  12 ",
        "with step 0.01: 12, off by 0.5",
        "with step 0.001: 12, off by 0.5",
        "with step 0.0001: 12, off by 0.5",
    ):
        assert part in message, message
    large = with_backward(lambda grad, x: 2 * grad * x * x)
    with pytest.raises(AssertionError, match="along random direction"):
        check_gradients(large, np.ones(100))


def test_every_argument_and_every_output_is_checked() -> None:
    class Sides(Function):
        def forward(self, x: Any, y: Any) -> Any:
            return x * 2, y * 3

        def backward(self, grad_x: Any, grad_y: Any) -> Any:
            return grad_x * 2, grad_y * 4

    with pytest.raises(AssertionError, match="with respect to argument 1"):
        check_gradients(Sides.apply, [1.0], [2.0])
    check_gradients(lambda x: Sides.apply(x, Tensor(np.array([2.0])))[0], [1.0])


def test_a_function_that_draws_is_refused() -> None:
    generator = Generator(1)
    with pytest.raises(AssertionError, match="different results for the same input"):
        check_gradients(lambda x: ops.dropout(x, 0.5, generator=generator), np.ones(20))
    check_gradients(lambda x: ops.dropout(x, 0.5, generator=Generator(1)), np.ones(20))


def test_an_argument_that_is_not_used_has_gradient_zero() -> None:
    check_gradients(lambda x, y: x * 2, [1.0], [5.0])


def test_the_point_is_not_changed() -> None:
    point = np.array([1.0, 2.0])
    check_gradients(lambda x: x * x, point)
    assert point.tolist() == [1.0, 2.0]


def test_tolerance_leaves_room_for_hard_functions() -> None:
    """Large and small gradients side by side, fast changes: what is right must not be refused."""
    check_gradients(lambda x: ops.exp(x), [-20.0, 0.0, 8.0])
    check_gradients(lambda x: ops.exp(3 * x) / (1 + ops.exp(3 * x)), np.linspace(-4, 4, 9))
    check_gradients(lambda x: x * 1e9, [1.0])
    check_gradients(lambda x: x * 1e-9, [1.0])


@pytest.mark.parametrize("factor", [1.0, 1 + 1e-6])
def test_a_function_that_bends_within_a_step(factor: float) -> None:
    """tanh(40 x) is no polynomial between x - 0.002 and x + 0.002; the smaller step tells right from barely wrong."""

    class Steep(Function):
        def forward(self, x: np.ndarray) -> np.ndarray:
            self.y = np.tanh(40 * x)
            return self.y

        def backward(self, grad_y: np.ndarray) -> np.ndarray:
            return factor * 40 * (1 - self.y * self.y) * grad_y

    if factor == 1:
        check_gradients(Steep.apply, [0.01, -0.02])
    else:
        with pytest.raises(AssertionError, match="wrong gradient"):
            check_gradients(Steep.apply, [0.01, -0.02])


def test_the_message_names_the_operation_and_the_element_of_a_large_argument() -> None:
    class WrongAtOnePlace(Function):
        def forward(self, x: np.ndarray) -> np.ndarray:
            return 2 * x

        def backward(self, grad_y: np.ndarray) -> np.ndarray:
            grad_x = 2 * grad_y
            grad_x[7, 3] = 0
            return grad_x

    with pytest.raises(AssertionError, match=r"(?s)WrongAtOnePlace: wrong gradient.*argument 0.*at index \(7, 3\)"):
        check_gradients(WrongAtOnePlace.apply, np.ones((10, 10)))
