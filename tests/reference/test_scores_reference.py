"""Entity scores equal seqeval's, default and strict, and a second count by conlleval's own rules."""

import random
import warnings
from collections import defaultdict

import pytest

pytest.importorskip("seqeval")

from seqeval.metrics.sequence_labeling import (  # type: ignore[import-untyped]
    get_entities,
    precision_recall_fscore_support,
)
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, Entities  # type: ignore[import-untyped]

from minitl.metrics import entity_scores
from minitl.text.schemes import Scheme, lenient_spans

pytestmark = pytest.mark.reference

Spans = set[tuple[str, int, int, int]]
TYPES = ("PER", "LOC", "SUB-ORG", "creative-work")
SEQUENCES = 10_000


def random_tags(prefixes: str, count: int, seed: int, *, bare: bool = False) -> list[list[str]]:
    """Sequences in which every tag follows every other, most of them illegal."""
    source = random.Random(seed)
    types = [f"-{name}" for name in TYPES] + ([""] if bare else [])
    tags = ["O"] * 2 + [prefix + name for prefix in prefixes for name in types[: source.randint(1, len(types))]]
    tags += [prefix + name for prefix in prefixes for name in types]
    return [source.choices(tags, k=source.randint(0, 12)) for _ in range(count)]


def pair(prefixes: str, *, bare: bool = False) -> tuple[list[list[str]], list[list[str]]]:
    """Gold and predicted tags; a prediction keeps about two thirds of the gold tags, so that entities are found."""
    gold = random_tags(prefixes, SEQUENCES, 1, bare=bare)
    source = random.Random(2)
    noise = random_tags(prefixes, SEQUENCES, 3, bare=bare)
    predicted = []
    for tags, other in zip(gold, noise, strict=True):
        replaced = other + ["O"] * len(tags)
        predicted.append([tag if source.random() < 0.66 else replaced[word] for word, tag in enumerate(tags)])
    return gold, predicted


def counts_of(gold: Spans, predicted: Spans) -> dict[str, tuple[int, int, int]]:
    """(true positives, false positives, false negatives) of each type."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for span in gold | predicted:
        found[span[0]][0 if span in gold and span in predicted else 1 if span in predicted else 2] += 1
    return {name: (tp, fp, fn) for name, (tp, fp, fn) in found.items()}


def our_counts(gold: list[list[str]], predicted: list[list[str]], **options: str) -> dict[str, tuple[int, int, int]]:
    scores = entity_scores(gold, predicted, **options)  # type: ignore[arg-type]
    return {
        name or "_": (count.true_positives, count.false_positives, count.false_negatives)
        for name, count in scores.types.items()
    }


@pytest.mark.parametrize(("prefixes", "bare"), [("BI", False), ("BI", True), ("BIES", False), ("BIES", True)])
def test_default_mode_equals_seqeval(prefixes: str, bare: bool) -> None:
    gold, predicted = pair(prefixes, bare=bare)

    def spans(sequences: list[list[str]]) -> Spans:
        return {
            (name, number, start, end)
            for number, tags in enumerate(sequences)
            for name, start, end in get_entities(tags)
        }

    expected = counts_of(spans(gold), spans(predicted))
    assert our_counts(gold, predicted) == expected
    assert any(true_positives > 100 for true_positives, _, _ in expected.values())
    check_averages(gold, predicted)


def check_averages(gold: list[list[str]], predicted: list[list[str]]) -> None:
    scores = entity_scores(gold, predicted)
    for average in ("micro", "macro", "weighted"):
        precision, recall, f1, support = precision_recall_fscore_support(gold, predicted, average=average)
        ours = getattr(scores, average)
        # The same few divisions in another order.
        assert (ours.precision, ours.recall, ours.f1) == pytest.approx((precision, recall, f1), abs=1e-12)
        assert ours.support == support


@pytest.mark.parametrize(
    ("prefixes", "scheme", "their_scheme"),
    [("BI", "IOB2", IOB2), ("BIES", "BIOES", IOBES), ("BILU", "BILOU", BILOU), ("I", "IOB1", IOB1)],
)
def test_strict_mode_equals_seqeval(prefixes: str, scheme: Scheme, their_scheme: type) -> None:
    """IOB1 is compared without ``B``: there seqeval lets an illegal ``B`` start an entity now and then."""
    gold, predicted = pair(prefixes)

    def spans(sequences: list[list[str]]) -> Spans:
        entities = Entities(sequences, their_scheme).entities
        return {(item.tag, item.sent_id, item.start, item.end) for each in entities for item in each}

    assert our_counts(gold, predicted, mode="strict", scheme=scheme) == counts_of(spans(gold), spans(predicted))


def conlleval_spans(tags: list[str]) -> list[tuple[str, int, int]]:
    """The chunks of one sentence, found with the two questions conlleval asks at each word, for ``B``, ``I``, ``O``.

    Does a chunk end before this word? After B or I, if O or B comes, or the type changes. Does a chunk start at this
    word? With every B, with an I after O, and with anything but O if the type changes.
    """
    chunks, start = [], 0
    last_kind, last_type = "O", ""
    for word, tag in enumerate([*tags, "O"]):
        kind, _, name = tag.partition("-")
        ends = (last_kind, kind) in {("B", "B"), ("B", "O"), ("I", "B"), ("I", "O")}
        ends |= last_kind != "O" and last_type != name
        starts = (last_kind, kind) in {("B", "B"), ("I", "B"), ("O", "B"), ("O", "I")}
        starts |= kind != "O" and last_type != name
        if ends:
            chunks.append((last_type, start, word))
        if starts:
            start = word
        last_kind, last_type = kind, name
    return chunks


def test_default_mode_equals_the_rules_of_conlleval() -> None:
    gold, predicted = pair("BI", bare=True)
    for tags in gold + predicted:
        assert [(item.type, item.start, item.end) for item in lenient_spans(tags)] == conlleval_spans(tags)


def test_nothing_found_and_nothing_there() -> None:
    for gold, predicted in ([["O"]], [["O"]]), ([["B-X"]], [["O"]]), ([["O"]], [["B-X"]]):
        if gold != predicted:  # seqeval cannot average over no type at all
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # seqeval warns where it defines 0/0 as 0
                check_averages(gold, predicted)
        assert entity_scores(gold, predicted).micro.f1 == 0.0
