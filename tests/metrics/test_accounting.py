"""Every gold entity is accounted for exactly once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.metrics import Accounting, accounting, entity_scores
from minitl.text.schemes import lenient_spans

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


@given(st.lists(st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), max_size=10), max_size=5), st.data())
def test_the_parts_add_up_and_agree_with_the_scores(
    sentences: list[list[tuple[str, str]]], data: st.DataObject
) -> None:
    gold = [[tag for tag, _ in sentence] for sentence in sentences]
    predicted = [[tag for _, tag in sentence] for sentence in sentences]
    excluded = {
        (number, entity.start, entity.end): data.draw(st.sampled_from(["vanished", "other"]))
        for number, tags in enumerate(gold)
        for entity in lenient_spans(tags)
        if data.draw(st.booleans())
    }
    account = accounting(gold, predicted, excluded)
    total = entity_scores(gold, predicted).total
    assert account.found == total.true_positives
    assert account.gold == total.true_positives + total.false_negatives
    assert account.predicted == total.true_positives + total.false_positives
    assert account.recall == total.score.recall
    assert sum(account.excluded.values()) <= len(excluded)
    parts = account.found + account.wrong_type + account.wrong_boundary + account.missed
    assert parts + sum(account.excluded.values()) == account.gold


def test_each_fate() -> None:
    gold = [["B-A", "I-A", "O", "B-B", "O", "B-C", "I-C", "O", "B-D", "O", "B-E", "O"]]
    predicted = [["B-A", "I-A", "O", "B-X", "O", "B-C", "O", "O", "O", "O", "O", "B-Z"]]
    account = accounting(gold, predicted, {(0, 10, 11): "vanished", (0, 0, 2): "found all the same"})
    assert account == Accounting(
        gold=5, found=1, wrong_type=1, wrong_boundary=1, missed=1, excluded={"vanished": 1}, predicted=4, invented=1
    )
    lines = str(account).split("\n")
    assert len({len(line) for line in lines}) == 1
    assert "  excluded: vanished" in str(account)


def test_a_broken_identity_raises() -> None:
    with pytest.raises(ValueError, match="does not add up: 3 gold entities, but 2"):
        Accounting(gold=3, found=1, wrong_type=0, wrong_boundary=0, missed=1)
    with pytest.raises(ValueError, match="does not add up"):
        Accounting(gold=1, found=2, wrong_type=0, wrong_boundary=0, missed=-1)
    with pytest.raises(ValueError, match="too few predicted"):
        Accounting(gold=1, found=1, wrong_type=0, wrong_boundary=0, missed=0, predicted=0)
    with pytest.raises(ValueError, match=r"1 entities that are not in gold, the first is \(0, 0, 2\)"):
        accounting([["B-A", "O"]], [["O", "O"]], {(0, 0, 2): "why"})
