"""The door between padded arrays (B, S) and the packed rows (T, ...) inside the model.

    input_ids       attention_mask      packed input_ids     positions      cu_seqlens
    [7 8 9 0]       [1 1 1 0]
    [0 0 5 6]       [0 0 1 1]           [7 8 9 5 6]          [0 1 2 2 3]    [0 3 5]

A token keeps its own column as its position, as transformers has it, so left padding and holes in the mask give the
values of the reference. Everything that a user can get wrong is checked here, on the host, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from minitl import ops
from minitl.models.config import BertConfig
from minitl.tensor import Tensor
from minitl.text.batch import PackedBatch

Ids: TypeAlias = "npt.ArrayLike | Tensor"
Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Padding:
    """Where the packed rows came from.

    Attributes:
        shape: (B, S).
        rows: (T,) place of each packed token in the B * S padded ones.
    """

    shape: tuple[int, int]
    rows: Integers

    def unpack(self, x: Tensor) -> Tensor:
        """Put packed rows (T, ...) back into (B, S, ...), with 0 at masked columns."""
        count = self.shape[0] * self.shape[1]
        return ops.reshape(ops.scatter_rows(x, self.rows, count), (*self.shape, *x.shape[1:]))


def pack(
    input_ids: Ids, attention_mask: Ids | None, token_type_ids: Ids | None, labels: Ids | None
) -> tuple[PackedBatch, Padding]:
    """Lay the kept tokens of padded arrays end to end.

    Args:
        input_ids: (B, S) integers.
        attention_mask: (B, S) of 0 and 1, 1 for a kept token; all kept if None.
        token_type_ids: (B, S) integers, all 0 if None.
        labels: (B, S) integers, -100 where nothing is scored, or None.

    Raises:
        TypeError: something that is no integer array.
        ValueError: other shapes, a mask with other values, a row with nothing kept, or a label on a masked column.
    """
    ids = _integers("input_ids", input_ids)
    if ids.ndim != 2 or ids.size == 0:
        raise ValueError(f"input_ids must be (B, S) with at least one token, got shape {ids.shape}")
    keep = _mask(attention_mask, ids.shape)
    segments = (
        np.zeros_like(ids) if token_type_ids is None else _same_shape("token_type_ids", token_type_ids, ids.shape)
    )
    lengths = keep.sum(axis=1)
    if not lengths.all():
        raise ValueError(
            f"attention_mask keeps nothing in row {int(np.argmin(lengths))}; leave such a row out of the batch"
        )
    packed_labels = None
    if labels is not None:
        padded_labels = _same_shape("labels", labels, ids.shape)
        stray = (padded_labels != ops.IGNORE_INDEX) & ~keep
        if stray.any():
            row, column = (int(i) for i in np.argwhere(stray)[0])
            raise ValueError(
                f"labels[{row}, {column}] is {padded_labels[row, column]} but attention_mask is 0 there; "
                f"a masked token cannot be scored, use {ops.IGNORE_INDEX}"
            )
        packed_labels = padded_labels[keep]
    batch = PackedBatch(
        input_ids=ids[keep],
        positions=np.nonzero(keep)[1].astype(np.int64),
        segments=segments[keep],
        cu_seqlens=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        labels=packed_labels,
    )
    return batch, Padding((ids.shape[0], ids.shape[1]), np.flatnonzero(keep))


def check_ranges(batch: PackedBatch, config: BertConfig) -> None:
    """Raise a ValueError naming the first token, position or segment that the model has no row for."""
    _check("token id", batch.input_ids, config.vocab_size, batch)
    hint = "; longer text needs windows, see minitl.text.encode_dataset"
    _check("position", batch.positions, config.max_position_embeddings, batch, hint)
    _check("segment", batch.segments, config.type_vocab_size, batch)


def check_labels(batch: PackedBatch, classes: int) -> None:
    """Raise a ValueError naming the first label that is neither a class nor -100; nothing is checked without labels."""
    if batch.labels is not None:
        classed = np.where(batch.labels == ops.IGNORE_INDEX, 0, batch.labels)
        _check("label", classed, classes, batch, f"; use {ops.IGNORE_INDEX} where nothing is scored")


def _check(name: str, values: Integers, count: int, batch: PackedBatch, hint: str = "") -> None:
    wrong = np.flatnonzero((values < 0) | (values >= count))
    if wrong.size:
        token = int(wrong[0])
        sentence = int(np.searchsorted(batch.cu_seqlens, token, side="right")) - 1
        number, column = token - int(batch.cu_seqlens[sentence]), int(batch.positions[token])
        place = f"sentence {sentence}, token {number} (column {column})"
        raise ValueError(
            f"{name} {values[token]} in {place} is out of range: the model has {count}, 0 to {count - 1}{hint}"
        )


def _integers(name: str, values: Ids) -> Integers:
    array = values.numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, not {array.dtype}")
    beyond = array > np.iinfo(np.int64).max
    if beyond.any():
        place = tuple(int(i) for i in np.argwhere(beyond)[0])
        raise ValueError(f"{name}{list(place)} is {array[place]}, which no int64 can hold")
    return array.astype(np.int64, copy=False)


def _same_shape(name: str, values: Ids, shape: tuple[int, ...]) -> Integers:
    array = _integers(name, values)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, input_ids {shape}")
    return array


def _mask(attention_mask: Ids | None, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    if attention_mask is None:
        return np.ones(shape, dtype=bool)
    mask = attention_mask.numpy() if isinstance(attention_mask, Tensor) else np.asarray(attention_mask)
    if mask.shape != shape:
        raise ValueError(f"attention_mask has shape {mask.shape}, input_ids {shape}; masks of pairs are not supported")
    if not np.isin(mask, (0, 1)).all():
        raise ValueError("attention_mask must hold 0 and 1 only: 1 for tokens to keep")
    return mask.astype(bool)
