"""The two label maps of a configuration: class number -> name, and back, always each other's inverse."""

from collections.abc import Mapping, Sequence
from typing import Any

MOST_LABELS = 1_000_000  # the label maps are built in memory; a larger head is a damaged file


def normalised_labels(labels: Mapping[int, str] | Sequence[str]) -> dict[int, str]:
    """Check a label map and sort it by number: numbers 0 to C-1 without a gap, names without a repeat.

    Raises:
        ValueError, TypeError: naming what is wrong.
    """
    if isinstance(labels, (list, tuple)):
        labels = dict(enumerate(labels))
    if not isinstance(labels, Mapping):
        raise TypeError(f"id2label must map numbers to names, found {short(labels)}")
    if not 1 <= len(labels) <= MOST_LABELS:
        raise ValueError(f"id2label must name 1 to {MOST_LABELS:,} labels, found {len(labels):,}")
    seen: dict[str, int] = {}
    for number, label in labels.items():
        if type(number) is not int:
            raise TypeError(f"a key of id2label must be a whole number, found {number!r}")
        if not isinstance(label, str):
            raise TypeError(f"id2label[{number}] must be a string, found {label!r}")
        if not label.isprintable():  # labels are printed in tables, where an escape sequence would do harm
            raise ValueError(f"id2label[{number}] is {short(label)}, which cannot be printed")
        if label in seen:
            raise ValueError(f"id2label gives the name {label!r} to both {seen[label]} and {number}")
        seen[label] = number
    if set(labels) != set(range(len(labels))):
        raise ValueError(f"id2label must number its {len(labels)} labels from 0 without a gap, found {short(labels)}")
    return {number: labels[number] for number in range(len(labels))}


def labels_from_json(labels: Any) -> dict[Any, Any]:
    """JSON has only string keys: turn "3" into 3, refuse "03" and anything that is not a plain number."""
    if not isinstance(labels, dict):
        raise TypeError(f"id2label must map numbers to names, found {short(labels)}")
    found: dict[Any, Any] = {}
    for key, label in labels.items():
        if isinstance(key, str):
            if not (key.isascii() and key.isdigit() and len(key) <= 10 and str(int(key)) == key):
                raise ValueError(f"id2label has the key {key!r}, which is not a class number")
            key = int(key)
        found[key] = label
    return found


def inverted_labels(label2id: Any) -> dict[int, str]:
    """Turn name -> number into number -> name; ValueError or TypeError when two names share a number."""
    if not isinstance(label2id, Mapping):
        raise TypeError(f"label2id must map names to numbers, found {short(label2id)}")
    inverse: dict[int, str] = {}
    for label, number in label2id.items():
        if type(number) is not int:
            raise TypeError(f"label2id[{label!r}] must be a whole number, found {number!r}")
        if number in inverse:
            raise ValueError(f"label2id gives the number {number} to both {inverse[number]!r} and {label!r}")
        inverse[number] = label
    return inverse


def short(value: Any) -> str:
    """``repr`` cut to what fits in a message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
