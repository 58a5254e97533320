"""The innermost loop of a matrix product, in registers: the tile.

    c[0:R, 0:W]  (+)=  sum over k of  a[0:R, k] * b[k, 0:W]         R = ROWS, W = WIDTH = VECTORS * lanes

A processor multiplies and adds two vectors every cycle, but only if it need not wait: a result can be used again after
4 cycles, and a number must be loaded before it can be multiplied. The tile keeps R x VECTORS sums in registers for the
whole loop. One turn loads VECTORS vectors of ``b`` and R numbers of ``a``, each copied into all lanes, and combines
every one with every other:

                      b[k, 0:16]  b[k, 16:32]  b[k, 32:48]         3 loads
        a[0, k]   ->   sum 0,0      sum 0,1      sum 0,2           8 loads that fill a register with one number
        a[1, k]   ->   sum 1,0      sum 1,1      sum 1,2           24 multiplications with additions, of 16 lanes each
          ...                                                      = 12 cycles, in which 24 loads would be possible
        a[7, k]   ->   sum 7,0      sum 7,1      sum 7,2

24 sums are in flight, so none is waited for, and 24 + 3 + 1 registers fit the 32 of AVX-512. AVX2 has 16 of half the
size: 6 x 2 sums, 2 vectors of b, 1 of a. The additions of one sum are taken in the order of k, whatever surrounds the
tile.

The compiler would not find this by itself, so the loop is written in LLVM's own language, by a Python program that
unrolls it. bfloat16 (the upper half of a float32) comes in pairs, two neighbours in k in one 32-bit word, for which the
processor has an instruction: two products are added to each sum. Elsewhere the halves are taken apart with shifts, so
that everything around the instruction can be tested on any machine.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minitl.kernels.processor import processor

AVX512 = processor().vector_bytes == 64
VECTOR_BYTES = 64 if AVX512 else 32
ROWS, VECTORS = (8, 3) if AVX512 else (6, 2)
HAS_BFLOAT16 = processor().bfloat16

I32, I64 = ir.IntType(32), ir.IntType(64)
ELEMENTS = {types.float32: (ir.FloatType(), 4), types.float64: (ir.DoubleType(), 8), types.uint32: (I32, 4)}


class _BFloat16(ir.Type):  # type: ignore[misc, unused-ignore]
    """LLVM's bfloat, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat16)

    def __hash__(self) -> int:
        return hash(_BFloat16)


def load(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=4)


def store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=4)


def moved(builder: Any, address: Any, distance: Any, times: int = 1) -> Any:
    """Return ``address + times * distance``; the distance is a number here, or one that the compiled code knows."""
    if isinstance(distance, int):
        return builder.add(address, ir.Constant(I64, times * distance))
    return builder.add(address, builder.mul(distance, ir.Constant(I64, times)))


def _in_all_lanes(builder: Any, number: Any, kind: Any) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, kind.count), None))


def _multiply_add(builder: Any, a: Any, b: Any, total: Any) -> Any:
    """Return ``a * b + total`` of vectors: of floats, or of pairs of bfloat16 (32-bit words)."""
    kind = total.type
    if a.type == kind:
        return _fused(builder, a, b, total)
    if HAS_BFLOAT16:
        pairs = ir.VectorType(_BFloat16(), 2 * kind.count)
        signature = ir.FunctionType(kind, [kind, pairs, pairs])
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        instruction = cgutils.get_or_insert_function(builder.module, signature, name)
        return builder.call(instruction, [total, builder.bitcast(a, pairs), builder.bitcast(b, pairs)])
    words = a.type
    sixteen = ir.Constant(words, [16] * words.count)
    upper = ir.Constant(words, [0xFFFF0000] * words.count)
    for lower in (True, False):
        left, right = (builder.shl(x, sixteen) if lower else builder.and_(x, upper) for x in (a, b))
        total = _fused(builder, builder.bitcast(left, kind), builder.bitcast(right, kind), total)
    return total


def _fused(builder: Any, a: Any, b: Any, total: Any) -> Any:
    """Return ``a * b + total``: one instruction and one rounding where the processor can, else two."""
    kind = total.type
    name = f"llvm.fmuladd.v{kind.count}{'f32' if kind.element == ir.FloatType() else 'f64'}"
    instruction = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(instruction, [a, b, total])


def make_tile(rows: int, vectors: int) -> Any:
    """Return the tile of that shape as a function for compiled code; see :data:`tile` for its arguments."""

    @intrinsic
    def tile(typing, like, a, a_row, a_step, b, b_step, steps, c, c_row, accumulate, bias):  # type: ignore[no-untyped-def]
        element, size = ELEMENTS[like.dtype]

        def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            write_tile(builder, rows, vectors, ir.VectorType(element, VECTOR_BYTES // size), *arguments[1:])
            return context.get_dummy_value()

        return types.void(like, *[types.intp] * 10), code

    return tile


def write_tile(
    builder: Any, rows: int, vectors: int, operand: Any, a: Any, a_row: Any, a_step: Any, b: Any, b_step: Any,
    steps: Any, c: Any, c_row: Any, accumulate: Any, bias: Any,
) -> None:  # fmt: skip
    """Write the tile's instructions: the loop over ``steps``, the sums going round it, and the end."""
    total_kind = ir.VectorType(ir.FloatType(), operand.count) if operand.element == I32 else operand
    zero, none, one = ir.Constant(total_kind, None), ir.Constant(I64, 0), ir.Constant(I64, 1)
    before = builder.block
    loop, end = builder.append_basic_block("turn"), builder.append_basic_block("end")
    builder.cbranch(builder.icmp_signed(">", steps, none), loop, end)

    builder.position_at_end(loop)
    k, a_now, b_now = (builder.phi(I64) for _ in range(3))
    totals = [builder.phi(total_kind) for _ in range(rows * vectors)]
    b_vectors = [load(builder, moved(builder, b_now, VECTOR_BYTES, j), operand) for j in range(vectors)]
    new = []
    for i in range(rows):
        number = load(builder, moved(builder, a_now, a_row, i), operand.element)
        everywhere = _in_all_lanes(builder, number, operand)
        for j in range(vectors):
            new.append(_multiply_add(builder, everywhere, b_vectors[j], totals[i * vectors + j]))
    next_k, next_a, next_b = builder.add(k, one), builder.add(a_now, a_step), builder.add(b_now, b_step)
    firsts, laters = [none, a, b] + [zero] * len(new), [next_k, next_a, next_b, *new]
    for phi, first, later in zip((k, a_now, b_now, *totals), firsts, laters, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, loop)
    builder.cbranch(builder.icmp_signed("<", next_k, steps), loop, end)

    builder.position_at_end(end)
    sums = [builder.phi(total_kind) for _ in new]
    for result, value in zip(sums, new, strict=True):
        result.add_incoming(zero, before)
        result.add_incoming(value, loop)
    _finish(builder, sums, vectors, c, c_row, accumulate, bias)


def _finish(builder: Any, sums: list[Any], vectors: int, c: Any, c_row: Any, accumulate: Any, bias: Any) -> None:
    """Write the sums of a tile: over what is there, added to it, or with a row of ``bias`` (0 for none) added."""
    kind = sums[0].type
    none = ir.Constant(I64, 0)

    def write(extra: Any) -> None:
        for number, total in enumerate(sums):
            i, j = divmod(number, vectors)
            place = moved(builder, moved(builder, c, c_row, i), VECTOR_BYTES, j)
            value = total if extra is None else builder.fadd(total, extra(place, j))
            store(builder, value, place)

    with builder.if_else(builder.icmp_signed("!=", accumulate, none)) as (add, overwrite):
        with add:
            write(lambda place, j: load(builder, place, kind))
        with overwrite, builder.if_else(builder.icmp_signed("!=", bias, none)) as (some, plain):
            with some:
                row = [load(builder, moved(builder, bias, VECTOR_BYTES, j), kind) for j in range(vectors)]
                write(lambda place, j: row[j])
            with plain:
                write(None)


#: ``tile(like, a, a_row, a_step, b, b_step, steps, c, c_row, accumulate, bias)``. All but ``like`` are whole numbers:
#: addresses and distances in bytes. ``a[i, k]`` is at ``a + i * a_row + k * a_step``, vector j of ``b[k]`` at
#: ``b + k * b_step + j * VECTOR_BYTES``, row i of c at ``c + i * c_row``. ``like`` is any array of the operands' dtype:
#: float32, float64, or uint32 for pairs of bfloat16, whose sums and c are float32. With ``accumulate`` (not 0) the
#: sums are added to c, else they overwrite it, plus the row of numbers at ``bias`` unless that is 0.
tile = make_tile(ROWS, VECTORS)

#: The same with one vector, for the small products of attention.
narrow_tile = make_tile(ROWS, 1)
