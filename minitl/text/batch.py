"""The batch that goes through the model: sentences laid end to end, without padding."""

from dataclasses import dataclass

import numpy as np

from minitl.ops import IGNORE_INDEX

IGNORED = IGNORE_INDEX
"""The label of a token that is not scored, as in PyTorch's cross entropy."""


@dataclass(frozen=True)
class PackedBatch:
    """``T`` tokens of ``B`` sentences in one row; nothing is padded.

    Attributes:
        input_ids: (T,) number of each token in the vocabulary.
        positions: (T,) column of each token in its own sentence.
        segments: (T,) segment of each token (``token_type_ids``).
        cu_seqlens: (B + 1,) where each sentence starts; the last entry is ``T``.
        labels: (T,) class of each token, -100 where it is not scored; None without labels.

    Raises:
        TypeError: if something is not a NumPy array of integers.
        ValueError: if shapes disagree, ``cu_seqlens`` does not run from 0 to ``T``, or a sentence is empty.
    """

    input_ids: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    cu_seqlens: np.ndarray
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("input_ids", "positions", "segments", "cu_seqlens", "labels"):
            value = getattr(self, name)
            if name == "labels" and value is None:
                continue
            if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
                found = f"{type(value).__name__} of {getattr(value, 'dtype', 'no dtype')}"
                raise TypeError(f"PackedBatch.{name} must be a NumPy array of integers, found {found}")
            wanted = self.input_ids.shape if name != "cu_seqlens" else value.shape
            if value.ndim != 1 or value.shape != wanted:
                raise ValueError(
                    f"PackedBatch.{name} has shape {value.shape}, input_ids {self.input_ids.shape}: both (T,)"
                )
        offsets, count = self.cu_seqlens, len(self.input_ids)
        if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != count:
            raise ValueError(f"PackedBatch.cu_seqlens must run from 0 to T = {count} over B >= 1 sentences: {offsets}")
        if not (offsets[1:] > offsets[:-1]).all():
            raise ValueError(f"PackedBatch.cu_seqlens must grow: sentences must not be empty: {offsets}")

    @property
    def token_count(self) -> int:
        """``T``."""
        return len(self.input_ids)

    @property
    def sentence_count(self) -> int:
        """``B``."""
        return len(self.cu_seqlens) - 1
