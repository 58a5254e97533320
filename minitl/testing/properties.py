"""What holds for every right operation, and a suite that looks for an example where it does not.

A gradient can be right and the operation still wrong: it may write into its inputs, return the array it was given,
keep state from one call to the next, or read memory in the order it expects instead of the order it is in. Each
function here checks one property at one point; :func:`assert_valid_function` runs them all at points that Hypothesis
draws, and shrinks what fails.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from minitl.autograd import Function, no_grad
from minitl.tensor import Tensor
from minitl.testing.gradients import ABSOLUTE_TOLERANCE, backward_of_all, check_gradients, name_of
from minitl.testing.layouts import LAYOUTS, contiguous, zero_stride

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Array: TypeAlias = npt.NDArray[Any]
Operation: TypeAlias = "type[Function] | Callable[..., Tensor | tuple[Tensor, ...]]"

# Two ways to the same numbers differ by roundings of float64, 1e-16 each: of sums over some hundred terms (relative to
# the largest number), or of terms that cancel (absolute, as in check_gradients).
RELATIVE_TOLERANCE = 1e-12
DIRECTIONS = 6  # arrays with more elements are moved along so many random directions: there will be many points


def assert_valid_function(
    function: Operation,
    arguments: SearchStrategy[Any],
    *,
    max_examples: int | None = None,
    keeps_dtype: bool = True,
) -> None:
    """Raise unless ``function`` behaves as a differentiable operation must, wherever Hypothesis looks.

    At each drawn point: backward agrees with finite differences; it is linear in the gradient it is given; arguments,
    options and that gradient are not written; gradients add up where arguments or results are used several times; a
    gradient for one argument only is the same as with the others; other layouts in memory give the same numbers; and
    float32 stays float32.

    Args:
        function: a :class:`minitl.Function` subclass, or a callable that takes Tensors and returns one or a tuple.
        arguments: draws an array, or a tuple of arrays, whose last item may be a dict of options, passed on by keyword.
            They are taken to float64. See ``minitl.testing.strategies``; keep the values away from kinks.
        max_examples: how many points; None for the number of the Hypothesis profile, usually 100.
        keeps_dtype: whether results have the dtype of the arguments; False for operations that convert.

    Raises:
        AssertionError: a property does not hold. Hypothesis adds the smallest example it found.
        ModuleNotFoundError: Hypothesis is not installed.

    >>> class Cube(Function):
    ...     def forward(self, x):
    ...         self.x = x
    ...         return x**3
    ...
    ...     def backward(self, grad_y):
    ...         return 3 * self.x**2 * grad_y
    >>> from minitl.testing import strategies
    >>> assert_valid_function(Cube, strategies.arrays(), max_examples=10)
    """
    from minitl.testing import strategies  # noqa: F401  says what to install, where Hypothesis is missing

    # isort: split
    from hypothesis import Phase, given, settings

    profile = settings()
    options: dict[str, Any] = {"max_examples": profile.max_examples if max_examples is None else max_examples}
    options["phases"] = [phase for phase in profile.phases if phase is not Phase.explain]  # it explains by line numbers

    def valid_for(arguments: Any) -> None:
        use = use_of(function, arguments)
        for check in CHECKS:
            check(use)
        if keeps_dtype:
            check_dtypes(use)

    valid_for.__name__ += "_" + re.sub(r"\W", "_", name_of(function))  # Hypothesis seeds and remembers by name
    run = given(arguments=arguments)(valid_for)
    settings(deadline=None, report_multiple_bugs=False, **options)(run)()


@dataclass(frozen=True)
class Use:
    """One use of an operation: at these arrays, with these options.

    Attributes:
        call: takes one Tensor for each array and the options, returns a Tensor or a tuple.
        name: what messages call it.
        arrays: float64 arrays, one per argument.
        options: keyword arguments.
    """

    call: Callable[..., Any]
    name: str
    arrays: tuple[Array, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def outputs(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        result = self.call(*tensors, **self.options)
        return result if isinstance(result, tuple) else (result,)

    def leaves(self, arrays: Sequence[Array] | None = None) -> list[Tensor]:
        """The arguments as Tensors that want gradients."""
        return [Tensor(array, requires_grad=True) for array in (self.arrays if arrays is None else arrays)]

    def weights(self, number: int) -> list[Array]:
        """A gradient for each output, the same for the same ``number``."""
        with no_grad():
            outputs = self.outputs([Tensor(array) for array in self.arrays])
        random = np.random.default_rng(number)
        return [np.asarray(random.standard_normal(y.shape), y.dtype if _is_float(y) else None) for y in outputs]

    def run(self, arrays: Sequence[Array], weights: Sequence[Array]) -> tuple[list[Array], list[Array]]:
        """Return copies of the outputs and of the gradients of ``sum of <weight, output>``."""
        leaves = self.leaves(arrays)
        outputs = self.outputs(leaves)
        values = [np.array(output.numpy()) for output in outputs]
        backward_of_all(outputs, weights)
        return values, [_gradient(leaf) for leaf in leaves]


def use_of(function: Operation, drawn: Any) -> Use:
    """Return the use of ``function`` that a strategy has drawn: an array, or a tuple of arrays and perhaps a dict."""
    items = list(drawn) if isinstance(drawn, list | tuple) else [drawn]
    options: dict[str, Any] = items.pop() if items and isinstance(items[-1], dict) else {}
    kinds = {item.dtype.kind for item in items if isinstance(item, np.ndarray)}
    if not items or not kinds <= {"f"}:
        raise TypeError(
            "the strategy must draw a float array, or a tuple of float arrays, whose last item may be a dict of options"
            f" (integers and masks are options); it drew {drawn!r}"
        )
    arrays = tuple(np.array(item, dtype=np.float64) for item in items)
    call = function.apply if isinstance(function, type) and issubclass(function, Function) else function
    return Use(call, name_of(function), arrays, options)


# -- the properties ----------------------------------------------------------------------------------------------------


def check_gradient(use: Use) -> None:
    """Backward agrees with finite differences, in float64."""
    call = use.call

    def with_options(*tensors: Tensor) -> Any:
        return call(*tensors, **use.options)

    with_options.__qualname__ = use.name
    check_gradients(with_options, *use.arrays, directions=DIRECTIONS)


def check_nothing_is_written(use: Use) -> None:
    """Neither forward nor backward writes into arguments, options, results, or the gradient that arrives."""
    weights = use.weights(0)
    given = {f"argument {number}": array for number, array in enumerate(use.arrays)}
    given |= {f"option {key!r}": value for key, value in use.options.items() if isinstance(value, np.ndarray)}
    given |= {f"the gradient of output {number}": weight for number, weight in enumerate(weights)}
    copies = {what: array.copy() for what, array in given.items()}
    outputs = use.outputs(use.leaves())
    _assert_unchanged(use, "forward", given, copies)
    results = {f"output {number}": output.array for number, output in enumerate(outputs)}
    copies |= {what: array.copy() for what, array in results.items()}
    backward_of_all(outputs, weights)
    _assert_unchanged(use, "backward", given | results, copies)
    for what, array in given.items():  # what is written may have been equal by chance
        array.flags.writeable = False
        try:
            backward_of_all(use.outputs(use.leaves()), weights)
        except ValueError as error:
            if "read-only" not in str(error):
                raise
            raise AssertionError(f"{use.name} writes into {what}; compute a new array instead") from error
        finally:
            array.flags.writeable = True


def _assert_unchanged(use: Use, method: str, given: dict[str, Array], copies: dict[str, Array]) -> None:
    for what, array in given.items():
        if array.tobytes() != copies[what].tobytes():
            raise AssertionError(
                f"{use.name}.{method} writes into {what}; compute a new array instead\n"
                f"  before: {copies[what].tolist()}\n  after:  {array.tolist()}"
            )


def check_linear(use: Use) -> None:
    """backward(2 g - 3 h) is 2 backward(g) - 3 backward(h): a derivative is linear in what arrives."""
    one, other = use.weights(1), use.weights(2)
    mixed = [np.asarray(2 * g - 3 * h, g.dtype) for g, h in zip(one, other, strict=True)]
    _, gradients = use.run(use.arrays, mixed)
    parts = zip(use.run(use.arrays, one)[1], use.run(use.arrays, other)[1], strict=True)
    wanted = [2 * g - 3 * h for g, h in parts]
    _assert_equal(use, "backward is not linear in the gradient it is given: of 2 g - 3 h it makes", gradients, wanted)


def check_fan_out(use: Use) -> None:
    """Where results and arguments are used several times, the gradients of all uses add up."""
    weights = [use.weights(number) for number in (3, 4, 5)]
    extra = [np.asarray(np.random.default_rng(6).standard_normal(array.shape), array.dtype) for array in use.arrays]
    parts = [use.run(use.arrays, weight)[1] for weight in weights]
    wanted = [sum(gradients, start=direct) for direct, *gradients in zip(extra, *parts, strict=True)]
    leaves = use.leaves()
    first, second = use.outputs(leaves), use.outputs(leaves)
    backward_of_all((*first, *first, *second, *leaves), [*weights[0], *weights[1], *weights[2], *extra])
    gradients = [_gradient(leaf) for leaf in leaves]
    _assert_equal(use, "gradients of several uses do not add up: together they are", gradients, wanted)


def check_one_at_a_time(use: Use) -> None:
    """A gradient for one argument only is what it is with all, and so are values when nothing is recorded."""
    weights = use.weights(7)
    values, wanted = use.run(use.arrays, weights)
    with no_grad():
        unrecorded = [np.array(output.numpy()) for output in use.outputs([Tensor(array) for array in use.arrays])]
    _assert_equal(use, "under no_grad() the values are", unrecorded, values)
    for chosen in range(len(use.arrays)):
        tensors = [Tensor(array, requires_grad=number == chosen) for number, array in enumerate(use.arrays)]
        backward_of_all(use.outputs(tensors), weights)
        what = f"if only argument {chosen} wants a gradient, it is"
        _assert_equal(use, what, [_gradient(tensors[chosen])], [wanted[chosen]])


def check_layouts(use: Use, names: Sequence[str] | None = None) -> None:
    """However arguments and arriving gradients lie in memory, values and gradients are the same.

    Three layouts are tried, other ones at other points, unless ``names`` says which.
    """
    if names is None:
        first = sum(zlib.crc32(array.tobytes()) for array in use.arrays)
        others = [name for name in LAYOUTS if name != "contiguous"]
        names = [others[(first + number) % len(others)] for number in range(3)]
    weights = use.weights(8)
    plain = use.run([contiguous(array) for array in use.arrays], weights)
    for name in names:
        layout = LAYOUTS[name]
        arrays, arriving = [layout(array) for array in use.arrays], [layout(weight) for weight in weights]
        values, gradients = use.run(arrays, arriving)
        wanted = plain
        if layout is zero_stride:  # which has other values
            wanted = use.run([contiguous(array) for array in arrays], [contiguous(weight) for weight in arriving])
        _assert_equal(use, f"with arrays in the layout {name!r} the values are", values, wanted[0])
        _assert_equal(use, f"with arrays in the layout {name!r} the gradients are", gradients, wanted[1])


def check_dtypes(use: Use) -> None:
    """float32 arguments give float32 results: a float64 constant somewhere would promote them, and slow down all."""
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        outputs = use.outputs([Tensor(array.astype(dtype), requires_grad=True) for array in use.arrays])
        for number, output in enumerate(outputs):
            if _is_float(output) and output.dtype != dtype:
                raise AssertionError(f"{use.name}: output {number} is {output.dtype} for {dtype} arguments")
        # the tape checks that gradients have the dtypes of their arguments
        backward_of_all(outputs, [np.ones(output.shape, output.dtype) for output in outputs])


CHECKS = (
    check_nothing_is_written,  # first: whatever writes into its arguments spoils the others' comparisons
    check_gradient,
    check_linear,
    check_fan_out,
    check_one_at_a_time,
    check_layouts,
)


# -- running and comparing ---------------------------------------------------------------------------------------------


def _is_float(tensor: Tensor) -> bool:
    return tensor.dtype.kind == "f"


def _gradient(leaf: Tensor) -> Array:
    return np.zeros(leaf.shape, leaf.dtype) if leaf.grad is None else np.array(leaf.grad.numpy())


def _assert_equal(use: Use, what: str, actual: Sequence[Array], wanted: Sequence[Array]) -> None:
    """Raise unless all arrays agree but for roundings."""
    scale = max((float(np.abs(array).max(initial=0)) for array in wanted if array.dtype.kind == "f"), default=0.0)
    tolerance = RELATIVE_TOLERANCE * scale + ABSOLUTE_TOLERANCE
    for number, (one, other) in enumerate(zip(actual, wanted, strict=True)):
        if one.shape != other.shape or not np.allclose(one, other, rtol=0, atol=tolerance, equal_nan=True):
            raise AssertionError(
                f"{use.name}: {what}, in number {number},\n  {one.tolist()}\n  instead of\n  {other.tolist()}"
            )


__all__ = ["CHECKS", "Use", "assert_valid_function", "use_of"]
