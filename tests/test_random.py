"""The generator's state is two integers; everything drawn is a pure function of them."""

from __future__ import annotations

import math

import gold
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitl
from minitl import Tensor, nn, ops
from minitl.random import Generator, default_generator, permutation


def test_state_is_seed_and_call() -> None:
    generator = Generator(7)
    generator.normal((3,))
    generator.normal((2, 2))
    assert (generator.seed, generator.call) == (7, 2)
    resumed = Generator(generator.seed, generator.call)
    np.testing.assert_array_equal(resumed.normal((5,)), generator.normal((5,)))
    assert generator.next_call() == (7, 3)
    assert generator == Generator(7, 4)


def test_manual_seed_starts_again() -> None:
    minitl.manual_seed(4)
    first = [nn.Linear(3, 2).weight.numpy().copy(), ops.dropout(Tensor(np.ones(50)), 0.5).numpy()]
    assert minitl.manual_seed(4) is default_generator()
    assert default_generator().call == 0
    second = [nn.Linear(3, 2).weight.numpy(), ops.dropout(Tensor(np.ones(50)), 0.5).numpy()]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    minitl.manual_seed(5)
    assert (nn.Linear(3, 2).weight.numpy() != first[0]).all()


@pytest.mark.parametrize("make", [minitl.manual_seed, Generator, lambda seed: permutation(3, seed=seed, stream=0)])
def test_seeds(make: object) -> None:
    assert callable(make)
    for wrong in (-1, 2**64):
        with pytest.raises(ValueError, match=r"a seed is an integer in \[0, 2\^64\)"):
            make(wrong)
    for wrong in (1.5, "1", None):
        with pytest.raises(TypeError):
            make(wrong)
    for right in (0, 2**64 - 1, np.int64(3), np.uint64(2**63)):
        make(right)


def test_numpy_integers_as_state() -> None:
    """As a checkpoint may bring them back."""
    wanted = Generator(3, 5).normal((4,))
    np.testing.assert_array_equal(Generator(np.int64(3), np.int64(5)).normal((4,)), wanted)
    np.testing.assert_array_equal(
        permutation(9, seed=np.int64(3), stream=np.int32(1)), permutation(9, seed=3, stream=1)
    )
    for wrong in (-1, 2**63):
        with pytest.raises(ValueError, match="call counter"):
            Generator(0, wrong)


def test_normal_is_box_muller_of_the_words() -> None:
    values = Generator(2**35 + 1, 6).normal((3,), std=2.0)
    words = [gold.word(i, 2**35 + 1, 6) for i in range(4)]
    radius = [math.sqrt(-2 * math.log((word + 0.5) / 2**32)) for word in words[:2]]
    angle = [2 * math.pi * (word + 0.5) / 2**32 for word in words[2:]]
    wanted = [radius[0] * math.cos(angle[0]), radius[1] * math.cos(angle[1]), radius[0] * math.sin(angle[0])]
    np.testing.assert_allclose(values, 2 * np.array(wanted), rtol=1e-13)  # NumPy's log and cos may round otherwise


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (0,), (2, 0)])
def test_normal_shapes(shape: tuple[int, ...]) -> None:
    values = Generator(1).normal(shape)
    assert np.shape(values) == shape
    assert np.isfinite(values).all()


def test_normal_moments() -> None:
    """200,000 draws: five standard deviations of each estimate."""
    count = 200_000
    values = Generator(12345).normal((count,), std=1.0)
    assert values.dtype == np.float64
    assert abs(values.mean()) < 5 / math.sqrt(count)
    assert abs((values**2).mean() - 1) < 5 * math.sqrt(2 / count)
    assert abs((values**3).mean()) < 5 * math.sqrt(15 / count)
    assert abs((values**4).mean() - 3) < 5 * math.sqrt(96 / count)
    below = (values < -1.0).mean()
    share = 0.5 * math.erfc(1 / math.sqrt(2))
    assert abs(below - share) < 5 * math.sqrt(share * (1 - share) / count)
    neighbours = np.corrcoef(values[: count // 2], values[count // 2 :])[0, 1]  # cosine and sine of one pair
    assert abs(neighbours) < 5 / math.sqrt(count / 2)


@given(st.integers(0, 300), st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1))
def test_a_permutation_is_one(count: int, seed: int, stream: int) -> None:
    order = permutation(count, seed=seed, stream=stream)
    assert sorted(order.tolist()) == list(range(count))
    np.testing.assert_array_equal(order, permutation(count, seed=seed, stream=stream))


def test_a_permutation_sorts_the_words() -> None:
    """By its definition, and by values noted once: data order must never change between versions."""
    keys = [gold.word(i, 5, 2**63 + 3) * 2**32 + gold.word(10 + i, 5, 2**63 + 3) for i in range(10)]
    order = permutation(10, seed=5, stream=3)
    assert order.tolist() == sorted(range(10), key=keys.__getitem__)
    assert order.dtype == np.int64
    assert permutation(8, seed=0, stream=0).tolist() == KNOWN_ORDER


KNOWN_ORDER = [3, 4, 1, 2, 7, 5, 6, 0]


def test_permutations_differ_by_seed_and_stream() -> None:
    orders = {tuple(permutation(20, seed=seed, stream=stream)) for seed in range(3) for stream in range(3)}
    assert len(orders) == 9
    for wrong in (-1, 2**63):
        with pytest.raises(ValueError, match="stream must be in"):
            permutation(3, seed=0, stream=wrong)


def test_positions_are_uniform() -> None:
    """Where element 0 lands in 3,000 orders of 6: a chi-squared of 5 degrees of freedom exceeds 30 once in 80,000."""
    landed = np.bincount([permutation(6, seed=1, stream=i).tolist().index(0) for i in range(3000)], minlength=6)
    assert ((landed - 500) ** 2 / 500).sum() < 30


def test_a_generator_of_ones_own_leaves_the_default_alone() -> None:
    mine, x = Generator(9, 100), Tensor(np.ones(40))
    y = ops.dropout(x, 0.5, generator=mine)
    assert (mine.call, default_generator().call) == (101, 0)
    np.testing.assert_array_equal(y.numpy(), gold.dropped(x.numpy(), 0.5, 9, 100))
