"""Hypothesis strategies for what operations take: shapes, dtypes, memory layouts, and values that stay clear of kinks.

Hypothesis draws examples from a strategy, and when one fails it looks for the smallest that still does. These
strategies shrink towards few dimensions, short sides, whole numbers and plain memory.

>>> from hypothesis import find
>>> find(arrays((1, 3), values=values(away_from=(0,))), lambda x: x.min() < 0)
array([[ 1.,  1., -1.]])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hypothesis_numpy
except ModuleNotFoundError as error:  # minitl itself does without
    raise ModuleNotFoundError(
        "minitl.testing.strategies and assert_valid_function need Hypothesis: pip install hypothesis "
        "(check_gradients does not)"
    ) from error

from minitl.testing.layouts import LAYOUTS, Layout

Shape: TypeAlias = tuple[int, ...]
Array: TypeAlias = npt.NDArray[Any]

STEPS_PER_UNIT = 8  # values are multiples of 1/8: exact in every float dtype, and short to write down


def shapes(*, min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 4) -> st.SearchStrategy[Shape]:
    """Shapes, those without dimensions and without elements among them."""
    return hypothesis_numpy.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side)


def broadcastable_shapes(
    count: int = 2, *, min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 4
) -> st.SearchStrategy[tuple[Shape, ...]]:
    """Tuples of ``count`` shapes that NumPy can broadcast together: equal, or 1, or missing on the left."""
    return hypothesis_numpy.mutually_broadcastable_shapes(
        num_shapes=count, min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side
    ).map(lambda drawn: tuple(drawn.input_shapes))


def dtypes() -> st.SearchStrategy[np.dtype[Any]]:
    """The float dtypes that a gradient can have: float64 and float32."""
    return st.sampled_from([np.dtype(np.float64), np.dtype(np.float32)])


def layouts() -> st.SearchStrategy[Layout]:
    """Ways to lie in memory, as functions from an array to an array: the plain one, and all others of ``LAYOUTS``."""
    return st.sampled_from(list(LAYOUTS.values()))


def values(
    low: float = -3.0, high: float = 3.0, *, away_from: Sequence[float] = (), margin: float = 0.3
) -> st.SearchStrategy[float]:
    """Multiples of 1/8 in [low, high], at least ``margin`` away from every kink or pole in ``away_from``.

    Whole numbers come first, small before large, so that a failing example shrinks to numbers that can be followed by
    hand. The distance leaves room for finite differences, which look 0.02 to both sides.

    Raises:
        ValueError: no number is left.
    """
    first, last = int(np.ceil(low * STEPS_PER_UNIT)), int(np.floor(high * STEPS_PER_UNIT))
    numbers = [step / STEPS_PER_UNIT for step in range(first, last + 1)]
    kept = [number for number in numbers if all(abs(number - kink) >= margin for kink in away_from)]
    if not kept:
        raise ValueError(f"no multiple of 1/8 lies in [{low}, {high}] and at least {margin} from all of {away_from}")
    return st.sampled_from(sorted(kept, key=lambda number: (number.as_integer_ratio()[1], abs(number), number < 0)))


def arrays(
    shape: Shape | st.SearchStrategy[Shape] | None = None,
    *,
    values: st.SearchStrategy[float] | None = None,
    dtype: npt.DTypeLike | st.SearchStrategy[np.dtype[Any]] = np.float64,
    layout: st.SearchStrategy[Layout] | None = None,
    distinct: bool = False,
) -> st.SearchStrategy[Array]:
    """Arrays of a float dtype.

    Args:
        shape: a shape or a strategy for it; :func:`shapes` if None.
        values: strategy for the elements; :func:`values` if None.
        dtype: a dtype or a strategy for it.
        layout: strategy for the way it lies in memory, for example :func:`layouts`; contiguous if None.
        distinct: no two elements are equal, for operations with a kink where two are (``max``); they are multiples of
            1/8 around 0, and ``values`` must be None.

    Raises:
        ValueError: both ``values`` and ``distinct``.
    """
    if distinct and values is not None:
        raise ValueError("arrays: distinct elements choose their own values; leave values out")
    elements = _default_values() if values is None else values
    shape_strategy = shapes() if shape is None else _strategy(shape)
    dtype_strategy = dtype if isinstance(dtype, st.SearchStrategy) else st.just(np.dtype(dtype))

    @st.composite
    def drawn(draw: st.DrawFn) -> Array:
        chosen = draw(shape_strategy)
        if distinct:
            order = draw(st.permutations(range(int(np.prod(chosen)))))
            numbers = (np.array(order, dtype=np.float64) - len(order) // 2) / STEPS_PER_UNIT
            array: Array = numbers.reshape(chosen)
        else:
            # without fill, which would repeat one number in most places of a larger array
            array = draw(hypothesis_numpy.arrays(np.float64, chosen, elements=elements, fill=st.nothing()))
        array = array.astype(draw(dtype_strategy))
        return array if layout is None else draw(layout)(array)

    return drawn()


def broadcastable_arrays(
    count: int = 2, *, values: st.SearchStrategy[float] | None = None, **shape_limits: int
) -> st.SearchStrategy[tuple[Array, ...]]:
    """Tuples of ``count`` float64 arrays whose shapes broadcast together; ``shape_limits`` as in
    :func:`broadcastable_shapes`."""
    return broadcastable_shapes(count, **shape_limits).flatmap(
        lambda drawn: st.tuples(*(arrays(shape, values=values) for shape in drawn))
    )


def _default_values() -> st.SearchStrategy[float]:
    return values()


def _strategy(shape: Shape | st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    return shape if isinstance(shape, st.SearchStrategy) else st.just(shape)
