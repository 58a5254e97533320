"""Random batches with the lengths of real sentences.

A workload is a list of batches, each a list of sentence lengths, in two orders: *random*, as sentences come out of a
shuffled corpus, and *grouped*, where sentences of similar length come together. Ids and labels are random numbers that
each worker draws from the same seed.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

LENGTHS = Path(__file__).resolve().parents[1] / "data" / "lengths.json"
IGNORED = -100
SPAN = 50  # batches among which sentences are sorted by length, as minitl.text.batches does it
DENSE_SHARE = 0.73  # of all tokens carry a label that counts, in workloads that come from no corpus


@dataclass(frozen=True)
class Workload:
    """What is read in one round.

    Attributes:
        name: for the table.
        grouped, random: batches of sentence lengths, in two orders.
        scored_share: share of the tokens between [CLS] and [SEP] whose label counts.
    """

    name: str
    grouped: list[list[int]]
    random: list[list[int]]
    scored_share: float

    def lengths(self, order: str) -> list[int]:
        """The lengths of all sentences in ``order``."""
        return [length for batch in self.orders[order] for length in batch]

    def tokens(self, order: str) -> int:
        """Tokens that are not padding: the useful ones."""
        return sum(self.lengths(order))

    def padded(self, order: str) -> int:
        """Tokens with the padding, if every batch is padded to its longest sentence."""
        return sum(len(batch) * max(batch) for batch in self.orders[order])

    @property
    def orders(self) -> dict[str, list[list[int]]]:
        """Both orders, by name."""
        return {"grouped": self.grouped, "random": self.random}


@cache
def corpora() -> dict[str, Any]:
    """The corpora whose lengths are known; see make_lengths.py."""
    return dict(json.loads(LENGTHS.read_text()))


def dense(sentences: int, length: int, batches: int = 1) -> Workload:
    """Batches without any padding: every sentence is equally long."""
    rows = [[length] * sentences for _ in range(batches)]
    return Workload(f"dense {sentences}x{length}", rows, rows, min(1.0, DENSE_SHARE * length / max(1, length - 2)))


def natural(corpus: str, sentences: int, batches: int, seed: int = 0) -> Workload:
    """Batches with the lengths of a corpus: a few that stand for a whole epoch.

    Args:
        corpus: whose lengths.
        sentences: in one batch.
        batches: how many to keep of the epoch's.
        seed: of the order of the epoch.
    """
    facts = corpora()[corpus]
    counts = {int(length): count for length, count in facts["sentences_of_length"].items()}
    generator = np.random.default_rng(seed)
    epoch = generator.permutation(np.repeat(list(counts), list(counts.values())))
    epoch = epoch[: len(epoch) // sentences * sentences]  # whole batches only
    spans = [np.sort(epoch[start : start + SPAN * sentences]) for start in range(0, len(epoch), SPAN * sentences)]
    inner = facts["tokens"] - 2 * facts["sentences"]  # [CLS] and [SEP] are never scored
    return Workload(
        f"{facts['name']} x{sentences}",
        _typical(np.concatenate(spans).reshape(-1, sentences), batches, generator),
        _typical(epoch.reshape(-1, sentences), batches, generator),
        facts["scored_labels"] / inner,
    )


def _typical(epoch: np.ndarray, count: int, generator: np.random.Generator) -> list[list[int]]:
    """Of 2,000 draws of ``count`` batches, keep the one most like the epoch (batches, B).

    Alike means: in tokens, in tokens with padding, and in the squares of the lengths, which attention's work grows
    with.
    """
    totals = np.stack([epoch.sum(1), epoch.max(1) * epoch.shape[1], (epoch**2).sum(1)], axis=1)
    draws = generator.integers(0, len(epoch), (2000, count))
    distance = np.abs(totals[draws].mean(1) / totals.mean(0) - 1).sum(1)
    kept: list[list[int]] = epoch[draws[distance.argmin()]].tolist()
    return kept


def draw(lengths: list[int], scored_share: float, vocabulary: int, classes: int, seed: int) -> tuple[Any, Any]:
    """Draw ids and labels, each (T,), of one batch whose sentences lie end to end; 0, the padding, is not drawn."""
    generator = np.random.default_rng(seed)
    total = sum(lengths)
    ids = generator.integers(1, vocabulary, total)
    labels = generator.integers(0, classes, total)
    ends = np.cumsum(lengths)
    labels[generator.random(total) >= scored_share] = IGNORED
    labels[ends - 1] = IGNORED
    labels[ends - lengths] = IGNORED
    return ids, labels


def pad(rows: np.ndarray, lengths: list[int], filler: int) -> np.ndarray:
    """Lay the rows of a batch, end to end (T,), into (B, S) with ``filler`` behind the shorter sentences."""
    kept = padding_mask(lengths)
    padded = np.full(kept.shape, filler, dtype=np.int64)
    padded[kept] = rows
    return padded


def padding_mask(lengths: list[int]) -> np.ndarray:
    """(B, S), True where there is a token."""
    return np.arange(max(lengths))[None, :] < np.array(lengths)[:, None]
