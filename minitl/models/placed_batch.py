"""A packed batch whose arrays lie on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from minitl.kernels.attention.layout import Layout
from minitl.kernels.launch import Array


@dataclass(frozen=True)
class PlacedBatch:
    """What a PackedBatch holds, on a device; checked before it went there, and not looked at again by the host.

    A CUDA graph reads it where it lies; the next batch is written over it. So there is room for a fixed number of
    tokens and sentences: what is not needed are padding tokens without a label, a sentence of their own, and empty
    sentences.

    Attributes:
        input_ids, positions, segments, labels: (T,) int64.
        cu_seqlens: where the sentences lie.
    """

    input_ids: Array
    positions: Array
    segments: Array
    labels: Array
    cu_seqlens: Layout
