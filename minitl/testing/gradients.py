"""Check a derivative against finite differences.

For an argument x, a direction d and a weight c for each output, backward must give the number that the function
itself shows:

    <c, f(x + h d) - f(x - h d)> / 2h   ~   <gradient of <c, f>, d>

The five-point stencil (-f(x+2h) + 8 f(x+h) - 8 f(x-h) + f(x-2h)) / 12h has an error of order h^4, so with h = 1e-3 in
float64 both rounding and truncation stay near 1e-12 of the largest gradient, and a tolerance of 1e-8 leaves no room
for a wrong rule. A function that bends too fast for that step gets a second, smaller one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minitl.tensor import Tensor

Floats = npt.NDArray[np.float64]
Checked = Callable[..., "Tensor | tuple[Tensor, ...]"]

STEP = 1e-3
RELATIVE_TOLERANCE = 1e-8  # of the largest gradient in the same argument
ABSOLUTE_TOLERANCE = 1e-11  # below it lies the rounding of the stencil itself
LARGEST_FULL_CHECK = 24  # inputs or outputs with more elements are checked along random directions
RANDOM_DIRECTIONS = 8
STEPS_SHOWN = (1e-2, 1e-3, 1e-4)


def check_gradients(function: Checked, *arrays: npt.ArrayLike, seed: int = 0, directions: int | None = None) -> None:
    """Raise unless ``function``'s backward agrees with finite differences in every argument.

    Small arguments are checked element by element and small outputs weight by weight, so the whole Jacobian is
    compared; larger ones along 8 random directions. Keep the values away from kinks and poles (at least 0.3 from 0 for
    ``abs``, ``log``, ``sqrt``, ``1 / x``): no finite difference is right there.

    Args:
        function: takes one Tensor per array, returns a Tensor or a tuple of them; the same result for the same input,
            so seed a generator inside if it draws dropout.
        arrays: the point at which to check, converted to float64.
        seed: of the random directions.
        directions: check along this number of random directions also where arrays are small, but have more elements
            than that: cheaper, and enough where many points are checked.

    Raises:
        AssertionError: a gradient is wrong; the message names the function, the argument, the index, both values, and
            how far off the finite differences of three step sizes are.

    >>> from minitl import ops
    >>> check_gradients(lambda x, y: ops.exp(x) * y, [0.5, 1.0], [2.0, 3.0])
    """
    points = [np.array(array, dtype=np.float64) for array in arrays]
    name = name_of(function)
    first = _evaluate(function, points)
    if not np.array_equal(first, _evaluate(function, points), equal_nan=True):
        raise AssertionError(
            f"{name} gives different results for the same input; seed its generator inside the function"
        )
    random = np.random.default_rng(seed)
    weights = list(_directions(first.shape, random, directions)) or [("without elements", first)]
    gradients = [_gradients(function, points, weight) for _, weight in weights]
    for argument in range(len(points)):
        comparisons = []
        for where, direction in _directions(points[argument].shape, random, directions):
            slope = _slope(function, points, argument, direction, STEP)
            for (output, weight), gradient in zip(weights, gradients, strict=True):
                comparison = _Comparison(where, direction, output, weight, gradient[argument], float(weight @ slope))
                comparisons.append(comparison)
        _judge(comparisons, function, name, points, argument)


def name_of(function: Any) -> str:
    """Return what messages call ``function``: the class's name for ``MyOp`` and ``MyOp.apply``."""
    if isinstance(function, partial):
        return name_of(function.func)
    owner = getattr(function, "__self__", function)
    return owner.__name__ if isinstance(owner, type) else getattr(function, "__qualname__", repr(function))


class _Comparison(NamedTuple):
    """One slope, of one weighted output along one direction of one argument, by backward and by finite differences."""

    where: str
    direction: Floats
    output: str
    weight: Floats
    gradient: Floats
    expected: float

    @property
    def actual(self) -> float:
        return float((self.gradient * self.direction).sum())


def _judge(comparisons: list[_Comparison], function: Checked, name: str, points: list[Floats], argument: int) -> None:
    """Raise for the first slope that is off by more than the tolerance, set by the argument's largest slope."""
    scale = max((abs(comparison.expected) for comparison in comparisons), default=0.0)
    tolerance = RELATIVE_TOLERANCE * scale + ABSOLUTE_TOLERANCE
    for comparison in comparisons:
        if abs(comparison.actual - comparison.expected) <= tolerance:  # False for NaN, so a NaN fails
            continue
        where, direction, output, weight, gradient, _ = comparison
        # Where the function bends within a step, the stencil is to blame: with a tenth of it, its error is 10,000 times
        # smaller (and rounding still far below the tolerance), while a wrong rule stays wrong.
        finer = float(weight @ _slope(function, points, argument, direction, STEP / 10))
        if abs(comparison.actual - finer) <= tolerance:
            continue
        if np.count_nonzero(direction) > 1:
            where, direction = _worst_element(function, points, argument, direction, weight, gradient)
        actual = float((gradient * direction).sum())
        slopes = {step: float(weight @ _slope(function, points, argument, direction, step)) for step in STEPS_SHOWN}
        raise AssertionError(
            f"{name}: wrong gradient of the output {output}\n"
            f"  with respect to argument {argument}, of shape {points[argument].shape}, {where}\n"
            f"  backward says         {actual!r}\n"
            f"  finite difference is  {slopes[STEP]:.12g}   (allowed difference {tolerance:.1e})\n"
            + "\n".join(
                f"  with step {step:g}: {slope:.12g}, off by {actual - slope:.3g}" for step, slope in slopes.items()
            )
        )


def _worst_element(
    function: Checked, points: list[Floats], argument: int, direction: Floats, weight: Floats, gradient: Floats
) -> tuple[str, Floats]:
    """Halve a direction along which the gradient is wrong, keeping the worse half, until one element is left."""

    def only(elements: npt.NDArray[np.intp], values: Floats) -> Floats:
        part = np.zeros(direction.size)
        part[elements] = values
        return part.reshape(direction.shape)

    def error(elements: npt.NDArray[np.intp]) -> float:
        part = only(elements, direction.reshape(-1)[elements])
        difference = (gradient * part).sum() - weight @ _slope(function, points, argument, part, STEP)
        return float(np.nan_to_num(abs(difference), nan=np.inf))

    elements = np.arange(direction.size)
    while elements.size > 1:
        elements = max(np.array_split(elements, 2), key=error)
    return f"at index {_index(elements[0], direction.shape)}", only(elements, np.ones(1))


def _index(flat: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape)) if shape else ()


def _directions(shape: tuple[int, ...], random: np.random.Generator, count: int | None) -> Iterator[tuple[str, Floats]]:
    """Yield every unit direction of a small array, some random ones of a large one, each with words for the message."""
    size = int(np.prod(shape))
    if size == 0:
        return
    if size > (LARGEST_FULL_CHECK if count is None else count):
        for number in range(RANDOM_DIRECTIONS if count is None else count):
            yield f"along random direction {number}", np.asarray(random.uniform(-1, 1, shape))
        return
    for flat in range(size):
        direction = np.zeros(size)
        direction[flat] = 1
        yield f"at index {_index(flat, shape)}", direction.reshape(shape)


def _outputs(function: Checked, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    result = function(*tensors)
    return result if isinstance(result, tuple) else (result,)


def _evaluate(function: Checked, points: list[Floats]) -> Floats:
    """Return all outputs as one vector."""
    results = _outputs(function, [Tensor(point.copy()) for point in points])
    return np.concatenate([np.asarray(result.numpy(), dtype=np.float64).reshape(-1) for result in results])


def _gradients(function: Checked, points: list[Floats], weight: Floats) -> list[Floats]:
    """Return backward's gradients of ``<weight, outputs>``, one per argument."""
    tensors = [Tensor(point.copy(), requires_grad=True) for point in points]
    outputs = _outputs(function, tensors)
    ends = np.cumsum([output.size for output in outputs])
    parts = [part.reshape(y.shape) for part, y in zip(np.split(weight, ends[:-1]), outputs, strict=True)]
    backward_of_all(outputs, parts)
    return [np.zeros(t.shape) if t.grad is None else np.array(t.grad.numpy()) for t in tensors]


def backward_of_all(outputs: Sequence[Tensor], weights: Sequence[npt.NDArray[Any]]) -> None:
    """Run backward from the sum of ``<weight, output>`` over those outputs that anything led to."""
    chosen = [(y, Tensor(weight)) for y, weight in zip(outputs, weights, strict=True) if y.requires_grad]
    if len(chosen) == 1 and chosen[0][0].dtype == chosen[0][1].dtype:
        chosen[0][0].backward(chosen[0][1])
    elif chosen:
        first, *others = [(y * weight).sum() for y, weight in chosen]
        sum(others, start=first).backward()


def _slope(function: Checked, points: list[Floats], argument: int, direction: Floats, step: float) -> Floats:
    """Return the derivative of all outputs along ``direction``, by the five-point stencil."""

    def value(steps: int) -> Floats:
        moved = list(points)
        moved[argument] = np.asarray(
            points[argument] + steps * step * direction
        )  # without dimensions, + gives a scalar
        return _evaluate(function, moved)

    slope: Floats = (8 * (value(1) - value(-1)) - (value(2) - value(-2))) / (12 * step)
    return slope
