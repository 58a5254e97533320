"""Memory on a GPU for the batches of a recorded training step; see graph.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minitl.kernels.attention.layout import Layout
from minitl.kernels.launch import Array, host_array
from minitl.models.config import BertConfig
from minitl.models.placed_batch import PlacedBatch
from minitl.ops import IGNORE_INDEX
from minitl.text.batch import PackedBatch

SHORTEST = 16  # of the lengths that a room's sentences may have: powers of 2
SENTENCES_AT_ONCE = 8
IN_FLIGHT = 2  # steps that the host may be ahead of the GPU


@dataclass(frozen=True)
class Size:
    """How much a room holds.

    Attributes:
        tokens: T, padding included.
        sentences: B, the padding's and empty ones included.
        longest: no sentence is longer.
    """

    tokens: int
    sentences: int
    longest: int

    @classmethod
    def for_batch(cls, batch: PackedBatch, bucket: int) -> Size:
        """Return the smallest size for a batch, of those with a multiple of ``bucket`` tokens."""
        tokens = -(-batch.token_count // bucket) * bucket
        sentences = -(-(batch.sentence_count + 1) // SENTENCES_AT_ONCE) * SENTENCES_AT_ONCE
        longest = max(int(np.diff(batch.cu_seqlens).max()), tokens - batch.token_count, SHORTEST)
        return cls(tokens, sentences, 1 << (longest - 1).bit_length())


class Room:
    """Memory on the device for the batches of one size, and for what a step returns.

    Attributes:
        batch: the arrays of the batch that is there.
        base_call: (1,) uint64, the number of the step's first random call.
        results: (2,) float64: loss, and norm of the gradient.
    """

    def __init__(self, size: Size, xp: Any) -> None:
        self.size, self._xp = size, xp
        lengths = [size.tokens] * 5 + [size.sentences + 1, size.sentences, 1]
        self._ends = np.cumsum(lengths)
        self._words = xp.zeros(self._ends[-1], np.int64)
        ids, positions, segments, labels, sentences, offsets, squares, base = self._parts(self._words)
        layout = Layout(offsets, sentences, squares.view(np.uint64), size.tokens, size.longest)
        self.batch = PlacedBatch(ids, positions, segments, labels, layout)
        self.base_call = base.view(np.uint64)
        self.results = xp.zeros(2, np.float64)
        self._staging = [host_array(xp, int(self._ends[-1]), np.int64) for _ in range(IN_FLIGHT + 1)]
        self._next = 0

    def _parts(self, words: Array) -> list[Array]:
        begins = [0, *self._ends[:-1]]
        return [words[begin:end] for begin, end in zip(begins, self._ends, strict=True)]

    def fill(self, batch: PackedBatch, config: BertConfig, first_call: int) -> None:
        """Write a batch, the padding behind it, and the number of the first random call."""
        host = self._staging[self._next]  # its last copy is over: the host is never so many steps ahead
        self._next = (self._next + 1) % len(self._staging)
        ids, positions, segments, labels, sentences, offsets, squares, base = self._parts(host)
        count = batch.token_count
        padding = {"input_ids": config.pad_token_id or 0, "positions": 0, "segments": 0, "labels": IGNORE_INDEX}
        for part, (name, value) in zip((ids, positions, segments, labels), padding.items(), strict=True):
            part[:count], part[count:] = getattr(batch, name), value
        offsets[: len(batch.cu_seqlens)], offsets[len(batch.cu_seqlens) :] = batch.cu_seqlens, self.size.tokens
        lengths = np.diff(offsets)
        sentences[:] = np.repeat(np.arange(len(lengths)), lengths)
        squares[:] = np.cumsum(lengths**2) - lengths**2
        base[0] = first_call
        if self._xp is np:
            self._words[...] = host
        else:
            self._words.set(host)
