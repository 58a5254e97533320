"""The random bits: Random123's known answers, the convention of elements and words, and independence of tiles."""

from __future__ import annotations

import importlib
import pkgutil
from itertools import pairwise
from typing import Any

import gold
import numpy as np
import pytest
import strict_array
from hypothesis import given, settings
from hypothesis import strategies as st

from minitl.kernels.dropout.reference import keep_mask
from minitl.kernels.philox.reference import words

# Random123's file of known answers, all its lines of philox4x32: counter, key, output
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
SEVEN_ROUNDS = [
    "5f6fb709 0d893f64 4f121f81 4f730a48",
    "5207ddc2 45165e59 4d8ee751 8c52f662",
    "4dfccaba 190a87f0 c47362ba b6b5242a",
]
ANSWERS = [
    *((counter, key, 10, output) for counter, key, output in KNOWN),
    *((counter, key, 7, output) for (counter, key, _), output in zip(KNOWN, SEVEN_ROUNDS, strict=True)),
]


def integers(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def implementations() -> list[Any]:
    """Every implementation there is for arrays of the host, and the reference on another array library too."""
    folder = "minitl.kernels.philox"
    found = {entry.name for entry in pkgutil.iter_modules(importlib.import_module(folder).__path__)}
    return [
        pytest.param(importlib.import_module(f"{folder}.{name}"), xp, id=f"{name}-{xp.__name__}")
        for name, xp in (("reference", np), ("reference", strict_array), ("cpu", np))
        if name in found
    ]


@pytest.mark.parametrize(("kernel", "xp"), implementations())
@pytest.mark.parametrize(("counter", "key", "rounds", "output"), ANSWERS)
def test_known_answers(kernel: Any, xp: Any, counter: str, key: str, rounds: int, output: str) -> None:
    blocks = tuple(xp.asarray(np.array([value], np.uint64)) for value in integers(counter))
    key_0, key_1 = integers(key)
    found = kernel.philox4x32(blocks, (key_0, key_1), rounds)
    assert [int(word[0]) for word in found] == integers(output)
    if rounds == 10:
        found = kernel.philox4x32(blocks, (key_0, key_1))
        assert [int(word[0]) for word in found] == integers(output), "ten rounds are the default"


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_known_answers_of_the_plain_philox(counter: str, key: str, output: str) -> None:
    c0, c1, c2, c3 = integers(counter)
    key_0, key_1 = integers(key)
    assert gold.philox((c0, c1, c2, c3), (key_0, key_1)) == tuple(integers(output))


@pytest.mark.parametrize(("counter", "key", "output"), [KNOWN[0], KNOWN[2]])  # element 2^66 - 4 fits no tensor
def test_known_answers_through_words(counter: str, key: str, output: str) -> None:
    """Key = seed; counter = (block low, block high, call low, call high); element ``4 * block`` is the first word."""
    c0, c1, c2, c3 = integers(counter)
    key_0, key_1 = integers(key)
    block, call, seed = c0 + 2**32 * c1, c2 + 2**32 * c3, key_0 + 2**32 * key_1
    got = words(4, seed=seed, call=call, first=4 * block, xp=np)
    assert got.dtype == np.uint32
    assert got.tolist() == integers(output)


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**64 - 1),
    call=st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**40),
    count=st.integers(0, 20),
)
def test_words_equal_the_plain_ones(seed: int, call: int, first: int, count: int) -> None:
    wanted = [gold.word(first + i, seed, call) for i in range(count)]
    assert words(count, seed=seed, call=call, first=first, xp=np).tolist() == wanted


@settings(max_examples=50)
@given(cuts=st.lists(st.integers(0, 70), max_size=6), first=st.integers(0, 2**34))
def test_splitting_changes_nothing(cuts: list[int], first: int) -> None:
    """A kernel may compute any part on its own: the bits belong to the elements."""
    whole = words(70, seed=5, call=6, first=first, xp=np)
    edges = sorted({0, 70, *cuts})
    parts = [words(stop - start, seed=5, call=6, first=first + start, xp=np) for start, stop in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_the_same_on_another_array_library() -> None:
    other = words(50, seed=2**63 + 1, call=2**35, first=3, xp=strict_array)
    np.testing.assert_array_equal(other.get(), words(50, seed=2**63 + 1, call=2**35, first=3, xp=np))


@pytest.mark.parametrize("probability", [0.0, 1e-9, 0.1, 0.5, 0.999])
def test_an_element_is_kept_iff_its_word_reaches_the_threshold(probability: float) -> None:
    mask = keep_mask((5, 7), probability=probability, seed=3, call=4, first=2, xp=np)
    threshold = int(probability * 2**32)
    assert mask.reshape(-1).tolist() == [gold.word(2 + i, 3, 4) >= threshold for i in range(35)]


def test_the_threshold_is_exact() -> None:
    """A probability of exactly word / 2^32 keeps that word; the next larger one drops it."""
    word = gold.word(0, 3, 4)
    for probability, kept in [(word / 2**32, True), ((word + 1) / 2**32, False), ((word - 1) / 2**32, True)]:
        assert keep_mask((1,), probability=probability, seed=3, call=4, xp=np).tolist() == [kept]


def test_streams_are_unlike() -> None:
    """Seeds, calls and elements that differ in one bit give words that differ in about half of theirs."""
    base = words(1000, seed=7, call=9, xp=np)
    for seed, call in [(7 + 2**32, 9), (6, 9), (7, 8), (7, 9 + 2**32)]:
        changed = np.bitwise_count(base ^ words(1000, seed=seed, call=call, xp=np)).mean()
        assert changed == pytest.approx(16, abs=0.5)  # standard deviation of the mean: sqrt(32 / 4 / 1000) = 0.09
