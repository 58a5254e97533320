"""The token-level table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.metrics import Score, token_scores
from minitl.metrics.tokens import WARNING


def test_a_worked_example() -> None:
    scores = token_scores([["B-X", "O", "O", "O"], ["O", "B-X"]], [["B-X", "O", "B-X", "O"], ["O", "O"]])
    assert scores.tags == {"B-X": Score(0.5, 0.5, 0.5, 2), "O": Score(0.75, 0.75, 0.75, 4)}
    assert scores.accuracy == pytest.approx(4 / 6, abs=1e-15)  # one division
    assert scores.all_outside_accuracy == pytest.approx(4 / 6, abs=1e-15)
    assert scores.macro.f1 == 0.625


@given(st.lists(st.lists(st.tuples(st.sampled_from("OBI"), st.sampled_from("OBI")), max_size=8), max_size=5))
def test_micro_average_over_all_tags_is_accuracy(sentences: list[list[tuple[str, str]]]) -> None:
    gold = [[tag for tag, _ in sentence] for sentence in sentences]
    predicted = [[tag for _, tag in sentence] for sentence in sentences]
    scores = token_scores(gold, predicted)
    assert scores.words == sum(map(len, gold)) == sum(score.support for score in scores.tags.values())
    right = sum(score.recall * score.support for score in scores.tags.values())
    assert right == pytest.approx(scores.accuracy * scores.words, abs=1e-9)  # a handful of float products


def test_the_table_warns() -> None:
    text = str(token_scores([["B-PER", "O"]], [["O", "O"]]))
    assert text.startswith(WARNING)
    assert "accuracy of O for every word    0.5000" in text


def test_empty() -> None:
    scores = token_scores([], [])
    assert (scores.accuracy, scores.all_outside_accuracy, scores.words) == (0.0, 0.0, 0)
    assert WARNING in str(scores)
