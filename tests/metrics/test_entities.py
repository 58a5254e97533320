"""Entity scores by example and by property; seqeval and conlleval are compared in tests/reference."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.metrics import EntityScores, Score, entity_scores
from minitl.metrics.entities import strict_spans
from minitl.text.schemes import SCHEMES, Entity, Scheme, illegal_transitions, lenient_spans

TAGS = ["O", "B-PER", "I-PER", "E-PER", "S-PER", "B-LOC", "I-LOC", "L-LOC", "U-LOC", "B", "I"]
tag_lists = st.lists(st.sampled_from(TAGS), max_size=10)


@st.composite
def tag_pairs(draw: st.DrawFn) -> tuple[list[list[str]], list[list[str]]]:
    gold = draw(st.lists(tag_lists, max_size=5))
    predicted = [[draw(st.sampled_from(TAGS)) for _ in tags] for tags in gold]
    return gold, predicted


@given(tag_pairs(), st.sampled_from(["conlleval", "strict"]), st.sampled_from(SCHEMES))
def test_counts_and_bounds(pair: tuple[list[list[str]], list[list[str]]], mode: str, scheme: Scheme) -> None:
    gold, predicted = pair
    scores = entity_scores(gold, predicted, mode=mode, scheme=scheme)  # type: ignore[arg-type]
    swapped = entity_scores(predicted, gold, mode=mode, scheme=scheme)  # type: ignore[arg-type]
    assert scores.micro.f1 == swapped.micro.f1
    assert scores.micro.precision == swapped.micro.recall
    for counts in (scores.total, *scores.types.values()):
        assert min(counts.true_positives, counts.false_positives, counts.false_negatives) >= 0
        assert 0 <= counts.score.f1 <= 1
    assert scores.macro.support == scores.weighted.support == scores.micro.support
    perfect = entity_scores(gold, gold, mode=mode, scheme=scheme)  # type: ignore[arg-type]
    assert all(counts.score.f1 == 1 for counts in perfect.types.values())


@given(tag_lists, st.sampled_from(SCHEMES))
def test_strict_reading_is_the_lenient_one_on_legal_tags(tags: list[str], scheme: Scheme) -> None:
    if not illegal_transitions(tags, scheme):
        assert strict_spans(tags, scheme) == lenient_spans(tags)
    for entity in strict_spans(tags, scheme):
        assert entity.start < entity.end


@pytest.mark.parametrize(
    ("tags", "scheme", "expected"),
    [
        (["I-PER", "B-PER", "I-LOC", "I-LOC"], "IOB2", [Entity("PER", 1, 2)]),
        (["B-PER", "I-PER", "E-PER", "S-LOC", "B-LOC", "O"], "BIOES", [Entity("PER", 0, 3), Entity("LOC", 3, 4)]),
        (["B-PER", "I-PER", "O", "E-PER"], "BIOES", []),
        (["B-PER", "L-PER", "U-PER", "S-PER"], "BILOU", [Entity("PER", 0, 2), Entity("PER", 2, 3)]),
        (["B-PER", "I-PER", "B-PER", "I-LOC"], "IOB1", [Entity("PER", 1, 2), Entity("PER", 2, 3), Entity("LOC", 3, 4)]),
    ],
)
def test_strict_reading(tags: list[str], scheme: Scheme, expected: list[Entity]) -> None:
    assert strict_spans(tags, scheme) == expected


def test_a_worked_example() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"]]
    predicted = [["B-PER", "I-PER", "O", "B-ORG"], ["I-LOC", "O"]]
    scores = entity_scores(gold, predicted)
    assert scores.types["LOC"].score == Score(1.0, 0.5, 2 / 3, 2)
    assert scores.types["ORG"].score == Score(0.0, 0.0, 0.0, 0)
    assert scores.micro == Score(2 / 3, 2 / 3, 2 / 3, 3)
    assert scores.macro.f1 == pytest.approx((1 + 2 / 3 + 0) / 3, abs=1e-12)  # a sum of three floats
    assert scores.weighted.f1 == pytest.approx((1 + 2 * 2 / 3) / 3, abs=1e-12)
    assert scores.f1 == scores.micro.f1
    strict = entity_scores(gold, predicted, mode="strict")
    assert strict.types["LOC"].score.recall == 0


def test_nothing_to_score_is_zero() -> None:
    zero = Score(0.0, 0.0, 0.0, 0)
    for gold in ([], [["O", "O"]]):
        scores = entity_scores(gold, gold)
        assert scores.micro == scores.macro == scores.weighted == zero
        assert isinstance(str(scores), str)
    assert entity_scores([["B-X"]], [["O"]]).micro == Score(0.0, 0.0, 0.0, 1)


def test_the_table_is_aligned_and_names_the_mode() -> None:
    gold = [["B-PER", "O", "B-creative-work", "B"]]
    lines = str(entity_scores(gold, gold)).split("\n")
    assert lines[0].startswith("entity (conlleval)")
    assert len({len(line) for line in lines if line}) == 1
    assert any(line.startswith("(no type)") for line in lines)
    assert str(entity_scores(gold, gold, mode="strict", scheme="IOB2")).startswith("entity (strict IOB2)")
    assert isinstance(entity_scores(gold, gold), EntityScores)


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="each of 1 sentences, found 0"):
        entity_scores([["O"]], [])
    with pytest.raises(ValueError, match="sentence 1 has 2 gold and 1 predicted tags"):
        entity_scores([["O"], ["O", "O"]], [["O"], ["O"]])
    with pytest.raises(ValueError, match="predicted sentence 0: expected a tag"):
        entity_scores([["O"]], [["PER"]])
    with pytest.raises(ValueError, match="mode must be"):
        entity_scores([["O"]], [["O"]], mode="loose")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scheme must be one of"):
        entity_scores([["O"]], [["O"]], mode="strict", scheme="IO")  # type: ignore[arg-type]
