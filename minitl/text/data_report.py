"""What a data set looks like before anything is trained on it, and the faults that would spoil its scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from minitl.text.alignment import encode_sentences
from minitl.text.conll import Sentence
from minitl.text.dataset import Dataset
from minitl.text.schemes import lenient_spans
from minitl.text.tokenizer import TextTokenizer

PARTS = ("train", "dev", "test")
LEAKAGE = 0.01  # a larger share of a part's sentences that are in train, too, is called a fault
SHORT = 5  # words; shorter sentences (dates, headings) are alike without any leakage


def data_report(data: Dataset) -> dict[str, Any]:
    """Return counts, lengths, duplicates, and what parts share, by name; under "faults" what spoils scores.

    A sentence of train that stands in test, too, can be known by heart. Entities of test that never occur in train are
    what tells how well a tagger does on names it has not seen.
    """
    parts: dict[str, Sequence[Sentence]] = {part: getattr(data, part) for part in PARTS}
    train = {sentence.words for sentence in parts["train"] if len(sentence.words) >= SHORT}
    train_mentions = {mention for sentence in parts["train"] for mention in _mentions(sentence)}
    report: dict[str, Any] = {"notes": list(data.notes)}
    faults = []
    for part, sentences in parts.items():
        words = [sentence.words for sentence in sentences]
        lengths = np.array([len(one) for one in words])
        mentions = [mention for sentence in sentences for mention in _mentions(sentence)]
        found: dict[str, Any] = {
            "labels": dict(Counter(tag for sentence in sentences for tag in sentence.tags or ()).most_common()),
            "words in a sentence": {
                name: int(np.quantile(lengths, share))
                for name, share in (("median", 0.5), ("95 %", 0.95), ("longest", 1.0))
            },
            "sentences without an entity": sum(not _mentions(sentence) for sentence in sentences),
            "sentences that occur again": len(words) - len(set(words)),
            "contradictions": _contradictions(sentences),
        }
        if part != "train":
            long = [one for one in words if len(one) >= SHORT]
            shared = sum(one in train for one in long)
            found[f"sentences of {SHORT} words and more that are in train, too"] = shared
            new = sum(mention not in train_mentions for mention in mentions)
            found["entities that are not in train"] = f"{new} of {len(mentions)}"
            if shared > LEAKAGE * max(1, len(long)):
                faults.append(f"{part}: {shared} of {len(long)} sentences are in train, too")
        report[part] = found
    report["faults"] = faults
    return report


def token_report(data: Dataset, tokenizer: TextTokenizer) -> dict[str, Any]:
    """Return for each part how a tokenizer cuts its words: pieces per word, unknown and vanished words."""
    report: dict[str, Any] = {}
    for part in PARTS:
        sentences = getattr(data, part)
        bare = [Sentence(sentence.words) for sentence in sentences]
        aligned = encode_sentences(bare, tokenizer, {})
        words = sum(one.word_count for one in aligned)
        pieces = sum(len(one.input_ids) for one in aligned)
        unknown = sum(len(np.unique(one.piece_words[one.input_ids == tokenizer.unk_id])) for one in aligned)
        report[part] = {
            "pieces per word": round(pieces / words, 3),
            "words with [UNK]": f"{unknown} ({unknown / words:.2%})",
            "words that vanish": sum(int((one.sizes == 0).sum()) for one in aligned),
            "pieces of the longest sentence": max(len(one.input_ids) for one in aligned),
        }
    return report


def _mentions(sentence: Sentence) -> list[tuple[str, tuple[str, ...]]]:
    """Type and words of each entity."""
    return [(entity.type, sentence.words[entity.start : entity.end]) for entity in lenient_spans(sentence.tags or ())]


def _contradictions(sentences: Sequence[Sentence]) -> int:
    """How many sentences have the words of an earlier one and other tags."""
    first: dict[tuple[str, ...], Any] = {}
    return sum(first.setdefault(sentence.words, sentence.tags) != sentence.tags for sentence in sentences)
