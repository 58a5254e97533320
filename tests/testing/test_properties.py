"""The suite for Functions passes what is right, and finds each kind of fault by the property that it breaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from minitl import Function, Tensor, ops, testing
from minitl.testing import strategies
from minitl.testing.properties import CHECKS, Use, check_dtypes, use_of


class Scale(Function):
    """y = 3 x, the rule that all the faults below distort."""

    def forward(self, x: Any) -> Any:
        return 3 * x

    def backward(self, grad_y: Any) -> Any:
        return 3 * grad_y


class Cube(Function):
    def forward(self, x: Any) -> Any:
        self.x = x
        return x**3

    def backward(self, grad_y: Any) -> Any:
        return 3 * grad_y * self.x * self.x


class SumAndProduct(Function):
    """Two arguments that broadcast, two results, an option."""

    def forward(self, x: Any, y: Any, *, factor: Any) -> Any:
        self.x, self.y, self.factor = x, y, factor
        return x + y, factor * x * y

    def backward(self, grad_sum: Any, grad_product: Any) -> Any:
        grad_x = grad_sum + self.factor * grad_product * self.y
        grad_y = grad_sum + self.factor * grad_product * self.x
        return self.folded(grad_x, self.x.shape), self.folded(grad_y, self.y.shape)

    @staticmethod
    def folded(grad: Any, shape: tuple[int, ...]) -> Any:
        grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
        axes = tuple(axis for axis, length in enumerate(shape) if length == 1)
        return grad.sum(axis=axes, keepdims=True)


def test_what_is_right_passes() -> None:
    testing.assert_valid_function(Scale, strategies.arrays())
    testing.assert_valid_function(Cube, strategies.arrays(dtype=strategies.dtypes(), layout=strategies.layouts()))
    pair = strategies.broadcastable_arrays(2)
    with_options = pair.flatmap(lambda arrays: st.tuples(*map(st.just, arrays), st.just({"factor": 2.0})))
    testing.assert_valid_function(SumAndProduct, with_options)
    testing.assert_valid_function(lambda x, y: x @ y, st.tuples(strategies.arrays((2, 3)), strategies.arrays((3, 1))))
    testing.assert_valid_function(ops.absolute, strategies.arrays(values=strategies.values(away_from=(0,))))
    testing.assert_valid_function(ops.max, strategies.arrays((2, 3), distinct=True))
    testing.assert_valid_function(lambda x: ops.astype(x, "float64"), strategies.arrays(), keeps_dtype=False)


class WrongRule(Scale):
    def backward(self, grad_y: Any) -> Any:
        return 3.001 * grad_y


class NotLinear(Scale):
    """Right for the small gradients of a check by unit vectors, wrong for larger ones."""

    def backward(self, grad_y: Any) -> Any:
        return 3 * np.clip(grad_y, -1, 1)


class WritesArgument(Scale):
    def forward(self, x: Any) -> Any:
        x *= 3
        return x / 1


class WritesArgumentInBackward(Cube):
    def backward(self, grad_y: Any) -> Any:
        self.x *= self.x
        return 3 * grad_y * self.x


class WritesGradient(Scale):
    def backward(self, grad_y: Any) -> Any:
        grad_y *= 3
        return grad_y


class WritesResult(Scale):
    def forward(self, x: Any) -> Any:
        self.y = 3 * x
        return self.y

    def backward(self, grad_y: Any) -> Any:
        self.y[...] = 3 * grad_y
        return self.y.copy()


class SharedState(Scale):
    """Saves on the class: the gradient of whichever use came last."""

    factor = 3.0
    uses = 0

    def forward(self, x: Any) -> Any:
        SharedState.uses += 1
        self.number = SharedState.uses
        return 3 * x

    def backward(self, grad_y: Any) -> Any:
        return 3 * grad_y if self.number == SharedState.uses else 0 * grad_y


class ReadsMemory(Scale):
    """Takes the memory for contiguous, as a compiled kernel would."""

    def forward(self, x: Any) -> Any:
        return 3 * np.lib.stride_tricks.as_strided(x, x.shape, np.empty(x.shape, x.dtype).strides)


class Promotes(Scale):
    def forward(self, x: Any) -> Any:
        return np.float64(3) * x.astype(np.float64)


class NeedsBoth(SumAndProduct):
    """Forgets the second gradient when the first is not wanted."""

    def backward(self, grad_sum: Any, grad_product: Any) -> Any:
        grad_x, grad_y = super().backward(grad_sum, grad_product)
        return grad_x, grad_y if self.needs_gradient[0] else np.zeros_like(grad_y)


class Draws(Scale):
    def forward(self, x: Any) -> Any:
        return 3 * x + np.random.default_rng().random(x.shape)


FAULTS: list[tuple[type[Function], str]] = [
    (WrongRule, "WrongRule: wrong gradient of the output at index"),
    (NotLinear, "NotLinear: (backward is not linear|gradients of several uses do not add up)"),
    (WritesArgument, "WritesArgument(.forward)? writes into argument 0; compute a new array"),
    (WritesArgumentInBackward, "WritesArgumentInBackward(.backward)? writes into argument 0"),
    (WritesGradient, "WritesGradient(.backward)? writes into the gradient of output 0"),
    (WritesResult, "WritesResult.backward writes into output 0"),
    (SharedState, "SharedState: gradients of several uses do not add up"),
    (ReadsMemory, "ReadsMemory: with arrays in the layout '[a-z-]+' the values are"),
    (Promotes, "Promotes: output 0 is float64 for float32 arguments"),
    (Draws, "Draws gives different results for the same input"),
]


@pytest.mark.parametrize(("function", "message"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_each_fault_is_found_by_its_property(function: type[Function], message: str) -> None:
    shapes = strategies.shapes(min_dims=1, max_dims=2, min_side=1, max_side=3)
    with pytest.raises(AssertionError, match=message) as caught:
        testing.assert_valid_function(function, strategies.arrays(shapes))
    assert "valid_for" in "".join(caught.value.__notes__), "Hypothesis shows the example"


def test_a_gradient_that_depends_on_which_are_wanted() -> None:
    arguments = st.tuples(strategies.arrays((2,)), strategies.arrays((2,)), st.just({"factor": 1.0}))
    with pytest.raises(AssertionError, match="if only argument 1 wants a gradient, it is"):
        testing.assert_valid_function(NeedsBoth, arguments)


def test_a_written_option() -> None:
    class WritesOption(Function):
        def forward(self, x: Any, *, weights: Any) -> Any:
            self.factors = weights.copy()
            weights += 1
            return self.factors * x

        def backward(self, grad_y: Any) -> Any:
            return self.factors * grad_y

    arguments = strategies.arrays((3,)).map(lambda x: (x, {"weights": np.ones(3)}))
    with pytest.raises(
        AssertionError, match=r"(?s)WritesOption.forward writes into option 'weights'.*before: .*after: "
    ):
        testing.assert_valid_function(WritesOption, arguments)


def test_the_example_shrinks_to_one_that_can_be_solved_by_hand() -> None:
    class Square(Function):
        """The derivative of x^2 is 2 x; here it is x^2."""

        def forward(self, x: Any) -> Any:
            self.x = x
            return x * x

        def backward(self, grad_y: Any) -> Any:
            return grad_y * self.x * self.x

    values = strategies.values(away_from=(0,))
    with pytest.raises(AssertionError) as caught:
        testing.assert_valid_function(Square, strategies.arrays(strategies.shapes(min_side=1), values=values))
    assert "backward says         1.0\n  finite difference is  2 " in str(caught.value)
    assert "arguments=array(1.)" in "".join(caught.value.__notes__)


def test_the_number_of_examples() -> None:
    points = []

    def call(x: Tensor) -> Tensor:
        points.append(x.numpy().tobytes())
        return x * 2

    testing.assert_valid_function(call, strategies.arrays((2,)), max_examples=7)
    few = len(set(points))
    points.clear()
    testing.assert_valid_function(call, strategies.arrays((2,)), max_examples=30)
    assert few < len(set(points))


@pytest.mark.parametrize("drawn", [(), [], {"factor": 1.0}, np.ones(2, np.int64), (np.ones(2), np.ones(2, bool))])
def test_strategies_that_draw_something_else(drawn: Any) -> None:
    with pytest.raises(TypeError, match=r"must draw a float array, or a tuple of float arrays"):
        testing.assert_valid_function(Scale, st.just(drawn))


def test_numbers_and_lists_are_arrays_too() -> None:
    use = use_of(Scale, [2.0, [1.0, 2.0], {"option": 1}])
    assert [array.dtype for array in use.arrays] == [np.float64, np.float64]
    assert [array.shape for array in use.arrays] == [(), (2,)]
    assert use.options == {"option": 1}
    assert use.name == "Scale"


def test_each_property_can_be_checked_alone() -> None:
    use = Use(Cube.apply, "Cube", (np.array([1.0, 2.0]),))
    for check in (*CHECKS, check_dtypes):
        check(use)
    wrong = Use(WrongRule.apply, "WrongRule", (np.array([1.0, 2.0]),))
    assert sum(_fails(check, wrong) for check in CHECKS) == 1


def _fails(check: Any, use: Use) -> bool:
    try:
        check(use)
    except AssertionError:
        return True
    return False
