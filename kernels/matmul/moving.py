"""Moving operands by whole vectors: what packing is made of.

A loop over single numbers waits for each of them. These functions are written in LLVM's own language, as the tile is:
each load brings a vector, and none depends on the one before it, so the processor has a dozen of them under way.

Addresses and distances are in bytes. ``like`` is any array of the operands' dtype: float32, float64, or uint32 for
pairs of bfloat16. Pairs are made here: float32s are read and rounded, and the numbers at k = 2 s and 2 s + 1 become the
lower and the upper half of word s. Neighbours in k lie beside each other ("along" a row) or below each other ("down" a
column).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minitl.kernels.matmul.tile import ELEMENTS, I32, I64, ROWS, VECTOR_BYTES, VECTORS, load, moved, store
from minitl.kernels.scratch import CACHE_LINE

I16 = ir.IntType(16)
AHEAD = 8  # steps between asking for a row and copying it: a row lies far from the one before, and is not foreseen


def _ask_for(builder: Any, address: Any) -> None:
    """Have a line brought to the nearest cache, without waiting; an address beyond the end does no harm."""
    anything = ir.IntType(8).as_pointer()
    signature = ir.FunctionType(ir.VoidType(), [anything, I32, I32, I32])
    prefetch = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    for_reading, nearest, data = (ir.Constant(I32, number) for number in (0, 3, 1))
    builder.call(prefetch, [builder.inttoptr(address, anything), for_reading, nearest, data])


def _rounded(builder: Any, bits: Any) -> Any:
    """Return float32s as whole numbers whose upper halves are the nearest bfloat16s, ties to even; NaN stays NaN."""
    kind = bits.type

    def every(number: int) -> Any:
        return ir.Constant(kind, [number] * kind.count)

    odd = builder.and_(builder.lshr(bits, every(16)), every(1))
    nearest = builder.add(bits, builder.add(odd, every(0x7FFF)))
    is_nan = builder.icmp_unsigned(">", builder.and_(bits, every(0x7FFFFFFF)), every(0x7F800000))
    return builder.select(is_nan, builder.or_(bits, every(0x400000)), nearest)


def _operands_down(builder: Any, address: Any, kind: Any, row: Any) -> Any:
    """Load one step of ``kind.count`` columns beside each other."""
    if kind.element != I32:
        return load(builder, address, kind)
    lower, upper = (_rounded(builder, load(builder, moved(builder, address, row, i), kind)) for i in (0, 1))
    sixteen, upper_half = (ir.Constant(kind, [number] * kind.count) for number in (16, 0xFFFF0000))
    return builder.or_(builder.lshr(lower, sixteen), builder.and_(upper, upper_half))


def _operands_along(builder: Any, address: Any, kind: Any) -> Any:
    """Load ``kind.count`` steps of one row."""
    if kind.element != I32:
        return load(builder, address, kind)
    sixteen = ir.Constant(kind, [16] * kind.count)
    parts = (load(builder, moved(builder, address, 4 * kind.count * i), kind) for i in (0, 1))
    halves = [builder.lshr(_rounded(builder, part), sixteen) for part in parts]
    both = builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(I32, 2 * kind.count), list(range(2 * kind.count))))
    return builder.bitcast(builder.trunc(both, ir.VectorType(I16, 2 * kind.count)), kind)


def _make_copy(pieces: int, lanes: int | None) -> Any:
    """Return a function that copies ``pieces`` vectors of so many lanes (None: a whole register) in each step."""

    @intrinsic
    def copy_down(typing, like, source, source_row, target, target_row, target_piece, steps):  # type: ignore[no-untyped-def]
        element, size = ELEMENTS[like.dtype]
        width = lanes or VECTOR_BYTES // size
        kind, rows_per_step = ir.VectorType(element, width), 2 if element == I32 else 1

        def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            _, source, source_row, target, target_row, target_piece, steps = arguments
            with cgutils.for_range(builder, steps) as loop:
                step = builder.mul(loop.index, ir.Constant(I64, rows_per_step))
                read = builder.add(source, builder.mul(step, source_row))
                write = builder.add(target, builder.mul(loop.index, target_row))
                for row in range(rows_per_step):
                    far = moved(builder, read, source_row, AHEAD * rows_per_step + row)
                    for line in range(0, pieces * width * size, CACHE_LINE):
                        _ask_for(builder, moved(builder, far, line))
                for piece in range(pieces):
                    vector = _operands_down(builder, moved(builder, read, width * size, piece), kind, source_row)
                    store(builder, vector, moved(builder, write, target_piece, piece))
            return context.get_dummy_value()

        return types.void(like, *[types.intp] * 6), code

    return copy_down


TILES_TOGETHER = 6  # are as wide as a panel of AVX-512

#: ``copy(like, source, source_row, target, target_row, target_piece, steps)``: step s of piece p goes from
#: ``source + s * source_row + p * (its size)`` to ``target + s * target_row + p * target_piece``; for pairs, step s is
#: rows 2 s and 2 s + 1 of the source. Pieces are the vectors of a panel, one vector, rows of six tiles, rows of one.
copy_panel, copy_vector = _make_copy(VECTORS, None), _make_copy(1, None)
copy_tiles, copy_tile = _make_copy(TILES_TOGETHER, ROWS), _make_copy(1, ROWS)


@intrinsic
def copy_along(typing, like, source, target, vectors):  # type: ignore[no-untyped-def]
    """Copy so many vectors of steps from one row to where they lie beside each other."""
    element, size = ELEMENTS[like.dtype]
    kind = ir.VectorType(element, VECTOR_BYTES // size)
    read_bytes = VECTOR_BYTES * (2 if element == I32 else 1)

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, source, target, vectors = arguments
        with cgutils.for_range(builder, vectors) as loop:
            read = builder.add(source, builder.mul(loop.index, ir.Constant(I64, read_bytes)))
            write = builder.add(target, builder.mul(loop.index, ir.Constant(I64, VECTOR_BYTES)))
            store(builder, _operands_along(builder, read, kind), write)
        return context.get_dummy_value()

    return types.void(like, *[types.intp] * 3), code


def _make_transpose(load_row: Callable[[Any, Any, Any], Any]) -> Any:
    """Return a function that writes a square of ``lanes`` x ``lanes`` elements transposed.

    The rows are loaded as vectors. Then, for d = 1, 2, 4, ..., rows i and i + d exchange the elements in which their
    lanes' numbers differ in that bit: after all bits, element (i, j) is in row j, lane i.
    """

    @intrinsic
    def transpose(typing, like, source, source_row, target, target_row):  # type: ignore[no-untyped-def]
        element, size = ELEMENTS[like.dtype]
        lanes = VECTOR_BYTES // size
        kind = ir.VectorType(element, lanes)

        def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            _, source, source_row, target, target_row = arguments
            rows = [load_row(builder, moved(builder, source, source_row, i), kind) for i in range(lanes)]
            d = 1
            while d < lanes:
                for i in (i for i in range(lanes) if not i & d):
                    low = [lane + lanes - d if lane & d else lane for lane in range(lanes)]
                    high = [lane + lanes if lane & d else lane + d for lane in range(lanes)]
                    rows[i], rows[i + d] = (
                        builder.shuffle_vector(rows[i], rows[i + d], ir.Constant(ir.VectorType(I32, lanes), picked))
                        for picked in (low, high)
                    )
                d *= 2
            for i in range(lanes):
                store(builder, rows[i], moved(builder, target, target_row, i))
            return context.get_dummy_value()

        return types.void(like, *[types.intp] * 4), code

    return transpose


#: ``transpose(like, source, source_row, target, target_row)``: of operands, which are rounded if they are pairs; and of
#: elements as they are (32-bit words, too).
transpose_operands, transpose_elements = _make_transpose(_operands_along), _make_transpose(load)
