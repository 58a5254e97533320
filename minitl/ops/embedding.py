"""Rows of tables by number, summed over tables: BERT's word + position + segment in one op.

    y[t] = sum_i table_i[ids_i[t]];      dtable_i[r] = sum of dy[t] over the t with ids_i[t] == r

Saved: the ids. Word tables are the largest parameters, so their gradient goes straight into the optimizer's buffer
where there is one, and the slot is told which rows it has touched. The row ``padding_id`` of a table gets no gradient,
as ``torch.nn.Embedding(padding_idx=...)`` has it; its forward value is used like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from minitl.autograd import WRITTEN, Function, Written
from minitl.device import move
from minitl.kernels.launch import Array, contiguous, on_gpu
from minitl.kernels.select import select
from minitl.ops.operands import check_ids
from minitl.ops.registry import register
from minitl.ops.shape import reshape
from minitl.precision import activations_in, check_no_gradient
from minitl.tensor import Tensor

Ids: TypeAlias = "np.ndarray | Array | Tensor"


def embedding(table: Tensor, ids: Ids, *, padding_id: int | None = None) -> Tensor:
    """Return ``table[ids]``.

    Args:
        table: (V, D).
        ids: integers in [0, V), any shape.
        padding_id: a row that gets no gradient, or None.

    Returns:
        (*ids.shape, D).

    Raises:
        TypeError: the ids are no integers.
        ValueError: an id is out of range; the message names it and its position.
    """
    ids = _integers(ids)
    check_ids(ids, table.shape[0], name="id")  # here, where a position still is one of the caller's
    y = embedding_sum([table], [ids.reshape(-1)], padding_ids=[padding_id])
    return y if ids.ndim == 1 else reshape(y, (*ids.shape, table.shape[1]))


def embedding_sum(tables: Sequence[Tensor], ids: Sequence[Ids], *, padding_ids: Sequence[int | None]) -> Tensor:
    """Return the sum over tables of the rows that each table's ids choose.

    Args:
        tables: each (V_i, D).
        ids: for each table (T,) integers in [0, V_i).
        padding_ids: for each table a row that gets no gradient, or None.

    Ids that are an array on a GPU are trusted: to look at them would stop it (``minitl.training.GraphedStep`` has
    looked at them before they went there).

    Returns:
        (T, D); bfloat16 or float16 under these policies with CUDA kernels, see ``minitl.precision``.

    Raises:
        PrecisionError: the policy is float16, and gradients would be needed.
    """
    checked = [_integers(index) for index in ids]
    for table, index, padding_id in zip(tables, checked, padding_ids, strict=True):
        if not on_gpu(index):
            check_ids(index, table.shape[0], name="id")
        if padding_id is not None and not 0 <= padding_id < table.shape[0]:
            raise ValueError(f"padding_id {padding_id} is out of range: the table has {table.shape[0]} rows")
    short = activations_in(tables[0].device) if tables[0].dtype == np.float32 else None
    y: Tensor = Embedding.apply(*tables, ids=checked, padding_ids=list(padding_ids), short=short)
    return y


def _integers(ids: Ids) -> Array:
    if on_gpu(ids):
        return ids
    host = np.array(ids.numpy() if isinstance(ids, Tensor) else ids)  # a copy: backward needs them as they are now
    if host.dtype.kind not in "iu":
        raise TypeError(f"embedding: ids must be integers, not {host.dtype}")
    return host


@register("embedding")
class Embedding(Function):
    def forward(self, *tables: Array, ids: list[Array], padding_ids: list[int | None], short: Any) -> Array:
        check_no_gradient(short, self.needs_gradient)
        self.ids = [move(index, self.device) for index in ids]
        self.padding_ids = padding_ids
        self.table_shapes, self.dtype = [table.shape for table in tables], tables[0].dtype
        kernel, rows = select("embedding", self.device), [contiguous(table) for table in tables]
        if short is None:
            y: Array = kernel.forward(rows, self.ids)
        else:
            y = kernel.forward_rounded(rows, self.ids, dtype=short)
        return y

    def backward(self, grad_y: Array) -> tuple[Array | Written | None, ...]:
        grad_y = contiguous(grad_y)
        return tuple(
            self._table_gradient(grad_y, number) if needed else None
            for number, needed in enumerate(self.needs_gradient)
        )

    def _table_gradient(self, grad_y: Array, number: int) -> Array | Written:
        slot = self.slot(number)
        if slot is None:
            out = self.xp.zeros(self.table_shapes[number], dtype=self.dtype)
        else:
            touched = slot.start_rows()
            if touched is not None:
                touched[self.ids[number]] = True
            slot.mark_written(touched)
            out = slot.array
        select("embedding", self.device).backward(
            grad_y, self.ids[number], out=out, padding_index=self.padding_ids[number]
        )
        return out if slot is None else WRITTEN
