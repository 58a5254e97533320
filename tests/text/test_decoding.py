"""Pieces vote as they should, and the path that is found is the best of all legal ones."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.text import EncodedWindow, illegal_transitions
from minitl.text.decoding import best_legal_path, scheme_of_labels, softmax, word_probabilities

LABELS = {
    "IOB1": ("O", "I-A", "B-A", "I-B"),
    "IOB2": ("O", "B-A", "I-A", "B-B", "I-B"),
    "BIOES": ("O", "B-A", "I-A", "E-A", "S-A"),
    "BILOU": ("O", "B-A", "I-A", "L-A", "U-A"),
}


@pytest.mark.parametrize("scheme", LABELS)
@given(data=st.data(), count=st.integers(1, 5))
def test_the_path_is_the_best_of_all_legal_ones(scheme: str, data: st.DataObject, count: int) -> None:
    labels = LABELS[scheme]
    seed = data.draw(st.integers(0, 2**32))
    probabilities = softmax(3 * np.random.default_rng(seed).standard_normal((count, len(labels))))
    found = best_legal_path(probabilities, labels, scheme)
    assert illegal_transitions([labels[number] for number in found], scheme) == []

    def score(path: tuple[int, ...]) -> float:
        return math.fsum(math.log(probabilities[word, number]) for word, number in enumerate(path))

    legal = [
        path
        for path in itertools.product(range(len(labels)), repeat=count)
        if not illegal_transitions([labels[number] for number in path], scheme)
    ]
    assert math.isclose(score(tuple(found)), max(map(score, legal)), rel_tol=1e-12)  # sums in another order
    assert scheme_of_labels(labels) == ("IOB2" if scheme == "IOB1" else scheme)  # a B is taken for the start


def test_no_words_and_no_legal_path() -> None:
    assert best_legal_path(np.zeros((0, 2)), ("O", "B-A"), "IOB2").shape == (0,)
    with pytest.raises(ValueError, match="no sequence of 1 of the labels I-A is legal in IOB2"):
        best_legal_path(np.ones((1, 1)), ("I-A",), "IOB2")


def window() -> EncodedWindow:
    """[CLS] a0 | b0 b1 b2 | c0 | d0 d1 [SEP], of which the words b and d are scored, and c vanished in between."""
    return EncodedWindow(
        sentence=0,
        input_ids=np.arange(9),
        labels=None,
        words=np.array([1, 3]),
        columns=np.array([2, 5]),
        piece_words=np.array([0, 1, 1, 1, 3, 3, 4]),
    )


def test_pieces_vote() -> None:
    logits = np.log(
        np.array(
            [
                *([[0.5, 0.5]] * 2),
                *([0.6, 0.4], [0.1, 0.9], [0.2, 0.8]),  # b
                *([0.3, 0.7], [0.7, 0.3]),  # d: equally sure, so the first piece is taken
                *([[0.5, 0.5]] * 2),
            ]
        )
    )
    columns, counts = window().scored_pieces
    np.testing.assert_array_equal(columns, [2, 3, 4, 5, 6])
    np.testing.assert_array_equal(counts, [3, 2])
    for aggregation, expected in {
        "first": [[0.6, 0.4], [0.3, 0.7]],
        "average": [[0.3, 0.7], [0.5, 0.5]],
        "max": [[0.1, 0.9], [0.3, 0.7]],
    }.items():
        found = word_probabilities(window(), logits, aggregation)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, expected, rtol=1e-12)  # float64 roundings of exp and log
    with pytest.raises(ValueError, match="aggregation must be one of first, average, max"):
        word_probabilities(window(), logits, "last")  # type: ignore[arg-type]
