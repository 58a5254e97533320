"""A random generator whose numbers Hypothesis draws, so that a failing case of the tables shrinks to a simple one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from op_cases import Case, Shape, Variant

from minitl.testing import strategies

LARGEST = 12  # elements: what is wrong in general is wrong there


class Drawn:
    """The methods of ``numpy.random.Generator`` that the tables of cases use, on top of ``draw``."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw

    def _array(self, shape: Any, elements: st.SearchStrategy[Any], dtype: Any) -> np.ndarray:
        return self.draw(hypothesis_numpy.arrays(dtype, shape, elements=elements, fill=st.nothing()))

    def standard_normal(self, shape: Any) -> np.ndarray:
        return self._array(shape, strategies.values(), np.float64)

    def uniform(self, low: float, high: float, shape: Any) -> np.ndarray:
        return self._array(shape, strategies.values(low, high), np.float64)

    def random(self, shape: Any) -> np.ndarray:
        return self._array(shape, st.sampled_from([0.0, 0.25, 0.5, 0.75]), np.float64)

    def choice(self, options: list[float], shape: Any) -> np.ndarray:
        return self._array(shape, st.sampled_from(options), np.float64)

    def integers(self, low: int, high: int, shape: Any) -> np.ndarray:
        return self._array(shape, st.integers(low, high - 1), np.int64)

    def permutation(self, count: int) -> np.ndarray:
        return np.array(self.draw(st.permutations(range(count))), dtype=np.int64)


@st.composite
def cases(draw: st.DrawFn, variants: list[Variant], max_side: int = 3) -> Case:
    """One use of one of the ``variants``."""
    variant = draw(st.sampled_from(variants))
    fewest, most = variant.dimensions
    shapes = strategies.shapes(min_dims=fewest, max_dims=most, max_side=max_side)
    shape: Shape = draw(shapes.filter(lambda shape: variant.takes(shape) and math.prod(shape) <= LARGEST))
    return variant.build(shape, Drawn(draw))
