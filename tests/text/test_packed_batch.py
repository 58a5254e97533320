"""PackedBatch refuses what would be read wrongly further on."""

from typing import Any

import numpy as np
import pytest

from minitl.text import PackedBatch


def parts(**changes: Any) -> dict[str, Any]:
    values = {
        "input_ids": np.array([2, 5, 3, 2, 3]),
        "positions": np.array([0, 1, 2, 0, 1]),
        "segments": np.zeros(5, dtype=np.int64),
        "cu_seqlens": np.array([0, 3, 5]),
        "labels": np.full(5, -100),
    }
    return values | changes


def test_counts() -> None:
    batch = PackedBatch(**parts())
    assert (batch.token_count, batch.sentence_count) == (5, 2)
    assert PackedBatch(**parts(labels=None)).labels is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": np.arange(4)}, "positions has shape"),
        ({"labels": np.zeros((5, 1), dtype=np.int64)}, "labels has shape"),
        ({"cu_seqlens": np.array([0, 3, 4])}, "from 0 to T = 5"),
        ({"cu_seqlens": np.array([1, 5])}, "from 0 to T"),
        ({"cu_seqlens": np.array([5])}, "from 0 to T"),
        ({"cu_seqlens": np.array([0, 3, 3, 5])}, "must grow"),
        ({"cu_seqlens": np.array([0, 4, 3, 5])}, "must grow"),
    ],
)
def test_wrong_shapes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PackedBatch(**parts(**changes))


@pytest.mark.parametrize("wrong", [[0, 1, 2, 0, 1], np.zeros(5), np.zeros(5, dtype=bool)])
def test_wrong_types(wrong: Any) -> None:
    with pytest.raises(TypeError, match="must be a NumPy array of integers"):
        PackedBatch(**parts(segments=wrong))
