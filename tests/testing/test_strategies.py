"""The strategies draw what they promise, all of it, and shrink to something small."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from minitl.testing import LAYOUTS, strategies


def smallest(strategy: st.SearchStrategy[Any], condition: Any = lambda drawn: True) -> Any:
    chosen = settings(phases=[Phase.generate, Phase.shrink], database=None, max_examples=1000)
    return find(strategy, condition, settings=chosen)


@given(shape=strategies.shapes(min_dims=1, max_dims=2, min_side=2, max_side=5))
def test_shapes_keep_their_limits(shape: tuple[int, ...]) -> None:
    assert 1 <= len(shape) <= 2
    assert all(2 <= side <= 5 for side in shape)


@given(drawn=strategies.broadcastable_shapes(3))
def test_shapes_broadcast(drawn: tuple[tuple[int, ...], ...]) -> None:
    assert len(drawn) == 3
    assert all(len(shape) <= 3 and all(side <= 4 for side in shape) for shape in drawn)
    np.broadcast_shapes(*drawn)


@pytest.mark.parametrize(
    "condition",
    [
        lambda a, b: a == () and b != (),
        lambda a, b: 0 in a,
        lambda a, b: len(a) == len(b) == 2 and a != b,
        lambda a, b: len(a) == 3 and len(b) == 1,
        lambda a, b: 1 in a and len(a) == len(b) and a != b and 1 in b,
    ],
)
def test_all_kinds_of_broadcasting_are_found(condition: Any) -> None:
    smallest(strategies.broadcastable_shapes(2), lambda drawn: condition(*drawn))


@given(value=strategies.values(-2, 2, away_from=(0, 1)))
def test_values_keep_away(value: float) -> None:
    assert -2 <= value <= 2
    assert abs(value) >= 0.3
    assert abs(value - 1) >= 0.3
    assert value * 8 == int(value * 8)


def test_values_shrink_to_small_whole_numbers() -> None:
    values = strategies.values(away_from=(0,))
    assert smallest(values) == 1.0
    assert smallest(values, lambda value: value < 0) == -1.0
    assert smallest(values, lambda value: value != int(value)) == 0.5
    assert smallest(strategies.values()) == 0.0


def test_values_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"no multiple of 1/8 lies in \[-0.2, 0.2\] and at least 0.3"):
        strategies.values(-0.2, 0.2, away_from=(0.0,))


@given(array=strategies.arrays(values=strategies.values(1, 2), dtype=strategies.dtypes()))
def test_arrays(array: np.ndarray) -> None:
    assert array.dtype in (np.float32, np.float64)
    assert array.ndim <= 3
    assert ((array >= 1) & (array <= 2)).all()
    assert array.flags.c_contiguous


@given(array=strategies.arrays((2, 3), distinct=True))
def test_distinct_elements(array: np.ndarray) -> None:
    assert array.shape == (2, 3)
    assert len(set(array.reshape(-1).tolist())) == 6


def test_distinct_elements_choose_their_own_values() -> None:
    with pytest.raises(ValueError, match="leave values out"):
        strategies.arrays((2,), distinct=True, values=strategies.values())


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_drawn(name: str) -> None:
    layout = smallest(strategies.layouts(), lambda layout: layout is LAYOUTS[name])
    plain = smallest(strategies.arrays((2, 2), layout=st.just(layout)), lambda array: array.any())
    assert plain.shape == (2, 2)


def test_arrays_in_layouts() -> None:
    arrays = strategies.arrays((2, 3), layout=strategies.layouts())
    assert smallest(arrays).flags.c_contiguous, "the plain layout comes first"
    assert not smallest(arrays, lambda array: not array.flags.aligned).flags.aligned
    assert smallest(arrays, lambda array: 0 in array.strides).strides[0] == 0


@given(drawn=strategies.broadcastable_arrays(2, values=strategies.values(1, 2), max_dims=2))
def test_broadcastable_arrays(drawn: tuple[np.ndarray, ...]) -> None:
    one, other = drawn
    assert (one + other).ndim <= 2
    assert ((one >= 1) & (one <= 2)).all()


def test_large_arrays_are_not_filled_with_one_number() -> None:
    """A swapped axis cannot be seen among equal numbers."""
    array = smallest(strategies.arrays((4, 4)), lambda array: len(set(array.reshape(-1).tolist())) >= 8)
    assert array.shape == (4, 4)


WITHOUT_HYPOTHESIS = """
import sys
sys.modules["hypothesis"] = None  # importing it fails, as if it were not installed
import numpy as np
from minitl import ops, testing
testing.check_gradients(ops.exp, np.ones(2))
print(sorted(testing.LAYOUTS)[0])
for use in (lambda: testing.assert_valid_function(ops.exp, None), lambda: __import__("minitl.testing.strategies")):
    try:
        use()
    except ModuleNotFoundError as error:
        print(error)
"""


def test_without_hypothesis_only_the_gradient_check_works_and_the_rest_says_why() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_HYPOTHESIS], capture_output=True, text=True, check=True)
    first, *messages = done.stdout.splitlines()
    assert first == "block"
    assert len(messages) == 2
    assert all("need Hypothesis: pip install hypothesis" in message for message in messages)
