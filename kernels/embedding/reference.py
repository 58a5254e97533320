"""Rows of tables by number, summed: ``y[t] = sum_i tables[i][indices[i][t]]``; backward adds them back in place."""

from __future__ import annotations

from collections.abc import Sequence

from minitl.kernels.launch import Array, array_module, check_floats, check_integers, check_ranges, check_shapes


def forward(tables: Sequence[Array], indices: Sequence[Array]) -> Array:
    """Return the sum over tables of the chosen rows.

    Args:
        tables: one or more (V_i, D).
        indices: for each table (T,) integers in [0, V_i); the caller has checked their range.

    Returns:
        (T, D).
    """
    if not tables or len(tables) != len(indices):
        raise ValueError(f"embedding needs tables, and indices for each; got {len(tables)} and {len(indices)}")
    named_tables = {f"tables[{i}]": table for i, table in enumerate(tables)}
    named_indices = {f"indices[{i}]": index for i, index in enumerate(indices)}
    check_floats(**named_tables)
    check_integers(**named_indices)
    check_shapes(
        **{name: (table, f"V{i} D") for i, (name, table) in enumerate(named_tables.items())},
        **{name: (index, "T") for name, index in named_indices.items()},
    )
    y = tables[0][indices[0]]
    for table, index in zip(tables[1:], indices[1:], strict=True):
        y += table[index]
    return y


def backward(grad_y: Array, index: Array, *, out: Array, padding_index: int | None = None) -> Array:
    """Add each row of ``grad_y`` to the row of ``out`` it came from.

    Args:
        grad_y: (T, D).
        index: (T,) integers.
        out: (V, D), added to in place.
        padding_index: a row that gets no gradient, or None.
    """
    check_floats(grad_y=grad_y, out=out)
    check_integers(index=index)
    check_shapes(grad_y=(grad_y, "T D"), index=(index, "T"), out=(out, "V D"))
    check_ranges(padding_index=(padding_index, 0, out.shape[0]))
    xp = array_module(grad_y)
    if padding_index is not None:
        kept = index != padding_index
        grad_y, index = grad_y[kept], index[kept]
    xp.add.at(out, index, grad_y)  # unlike out[index] += grad_y, it adds a repeated row each time
    return out
