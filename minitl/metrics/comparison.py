"""Is one tagger better than another, or was it lucky with the test set? A paired bootstrap over documents.

Sentences of one document share names and topics, so documents, not sentences, are what a test set is a sample of. Drawn
with replacement many times, they give as many test sets that could have been; on each both taggers are scored. The
middle 95 % of the differences are the interval (Efron and Tibshirani 1993, chapter 13; for entities, Berg-Kirkpatrick
et al. 2012).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minitl.metrics.entities import TagSequences, check_lengths
from minitl.text.schemes import lenient_spans

AT_ONCE = 1000  # test sets drawn together, which bounds the memory


@dataclass(frozen=True)
class Interval:
    """A micro F1 and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Comparison:
    """Two taggers on the same sentences.

    Attributes:
        first, second: their entity F1, conlleval's rules.
        difference: second minus first; its interval is paired, and so narrower than those of the two suggest.
        not_better: share of the drawn test sets on which the second is not better than the first.
        groups: how many documents (or sentences) were drawn from.
        resamples: how many test sets were drawn.
    """

    first: Interval
    second: Interval
    difference: Interval
    not_better: float
    groups: int
    resamples: int


def compare_taggers(
    gold: TagSequences,
    first: TagSequences,
    second: TagSequences,
    groups: Sequence[int],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare the tags of two taggers.

    Args:
        gold: the tags of each sentence.
        first, second: what the taggers say.
        groups: the number of the document of each sentence; of the sentence itself, if documents are not known.
        resamples: test sets to draw.
        seed: of the drawing.

    Raises:
        ValueError: the numbers of sentences or tags differ, or there is no sentence.
    """
    check_lengths(gold, first)
    check_lengths(gold, second)
    if not gold or len(groups) != len(gold):
        raise ValueError(f"expected a group for each of {len(gold)} sentences, found {len(groups)}")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    counts = np.zeros((2, len(numbers), 2))  # tagger, group: twice the true positives; gold and predicted entities
    for group, *tags in zip(groups, gold, first, second, strict=True):
        true, *found = (set(lenient_spans(one)) for one in tags)
        for tagger, entities in enumerate(found):
            counts[tagger, numbers[group]] += 2 * len(true & entities), len(true) + len(entities)
    drawn = _drawn_scores(counts, resamples, np.random.default_rng(seed))
    whole = _f1(counts.sum(axis=1))
    differences = drawn[1] - drawn[0]
    return Comparison(
        _interval(whole[0], drawn[0]),
        _interval(whole[1], drawn[1]),
        _interval(whole[1] - whole[0], differences),
        float((differences <= 0).mean()),
        len(numbers),
        resamples,
    )


def _drawn_scores(counts: np.ndarray, resamples: int, random: np.random.Generator) -> np.ndarray:
    """Return the F1 of both taggers, (2, R), on test sets that are drawn from the groups with replacement."""
    groups = counts.shape[1]
    scores = []
    for begin in range(0, resamples, AT_ONCE):
        size = min(AT_ONCE, resamples - begin)
        times = random.multinomial(groups, np.full(groups, 1 / groups), size=size)  # (R, G)
        scores.append(np.stack([_f1(times @ one) for one in counts]))
    return np.concatenate(scores, axis=1)


def _f1(sums: np.ndarray) -> np.ndarray:
    """F1 of (..., 2), 0 where there is no entity."""
    scores: np.ndarray = sums[..., 0] / np.where(sums[..., 1] == 0, 1, sums[..., 1])
    return scores


def _interval(value: float, drawn: np.ndarray) -> Interval:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))
