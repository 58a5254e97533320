"""Philox4x32-10 compiled: sixteen blocks of four words at a time, side by side in vector registers.

A round multiplies 32-bit numbers into 64 bits. Vector units can do that (x86: ``vpmuludq``), but the compiler does not
see it in a loop over blocks and multiplies one number after the other, six times slower. So ``_sixteen_blocks`` writes
the rounds in the compiler's own language (LLVM's, which Numba takes through ``intrinsic``): on vectors of sixteen lanes
of 64 bits, a lane a block. Only the lower half of a lane counts; the mask before a multiplication says so, and costs
nothing, since the instruction looks at nothing else. The four words of a block end in four vectors and belong side by
side in memory; a shuffle of lanes brings them there.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from minitl.kernels.compiled import SMALL, compiled, parallel
from minitl.kernels.launch import Array
from minitl.kernels.philox.reference import KEY_STEP_0, KEY_STEP_1, MASK, MULTIPLIER_0, MULTIPLIER_2

ROUNDS = 10
BLOCKS = 16
GROUP = 4 * BLOCKS  # words made at a time
CHUNK = 2**14  # words that one thread makes at a time

_WORD, _LANE = ir.IntType(32), ir.IntType(64)
_WORDS, _LANES = ir.VectorType(_WORD, BLOCKS), ir.VectorType(_LANE, BLOCKS)
_HALF = ir.Constant(_LANE, 32)
_ALL_FROM_LANE_0 = ir.Constant(_WORDS, None)
_ONE_AFTER_THE_OTHER = ir.Constant(ir.VectorType(_WORD, 2 * BLOCKS), list(range(2 * BLOCKS)))


def _all(value: int) -> ir.Constant:
    """The vector that has ``value`` in every lane."""
    return ir.Constant(_LANES, [value] * BLOCKS)


def _in_all(builder: Any, value: Any) -> Any:
    """The same, for a value that is known when the code runs."""
    vector = builder.insert_element(ir.Constant(_LANES, ir.Undefined), value, ir.Constant(_WORD, 0))
    return builder.shuffle_vector(vector, vector, _ALL_FROM_LANE_0)


def _sixteen_blocks(builder: Any, number: Any, seed: Any, call: Any, rounds: Any) -> list[Any]:
    """Write the code of the blocks from ``number`` on; return the four words of each, a vector a word."""
    counter = builder.add(_in_all(builder, number), ir.Constant(_LANES, list(range(BLOCKS))))
    call = _in_all(builder, call)
    start = (
        counter,
        builder.lshr(counter, _all(32)),
        call,
        builder.lshr(call, _all(32)),
        seed,
        builder.lshr(seed, _HALF),
    )
    # the loop's variables: they are written as places in memory, of which the compiler makes registers
    places = [cgutils.alloca_once_value(builder, value) for value in start]
    with cgutils.for_range(builder, rounds):
        c0, c1, c2, c3, key_0, key_1 = map(builder.load, places)
        product_0 = builder.mul(builder.and_(c0, _all(MASK)), _all(MULTIPLIER_0))
        product_2 = builder.mul(builder.and_(c2, _all(MASK)), _all(MULTIPLIER_2))
        c0 = builder.xor(builder.xor(builder.lshr(product_2, _all(32)), c1), _in_all(builder, key_0))
        c2 = builder.xor(builder.xor(builder.lshr(product_0, _all(32)), c3), _in_all(builder, key_1))
        key_0 = builder.add(key_0, ir.Constant(_LANE, KEY_STEP_0))
        key_1 = builder.add(key_1, ir.Constant(_LANE, KEY_STEP_1))
        for value, place in zip((c0, product_2, c2, product_0, key_0, key_1), places, strict=True):
            builder.store(value, place)
    return [builder.trunc(builder.load(place), _WORDS) for place in places[:4]]


def _in_order(builder: Any, words: list[Any]) -> list[Any]:
    """Write the code that turns a vector a word into four vectors, a block after the other."""
    pairs = [builder.shuffle_vector(*two, _ONE_AFTER_THE_OTHER) for two in (words[:2], words[2:])]
    order = [word * BLOCKS + block for block in range(BLOCKS) for word in range(4)]
    parts = [ir.Constant(_WORDS, order[begin : begin + BLOCKS]) for begin in range(0, GROUP, BLOCKS)]
    return [builder.shuffle_vector(*pairs, part) for part in parts]


@intrinsic
def fill_group(
    typing: Any, out: Any, index: Any, count: Any, number: Any, skipped: Any, seed: Any, call: Any, rounds: Any
) -> Any:
    """Write to ``out[index : index + count]`` from the 64 words of the blocks from ``number`` on, ``skipped`` left out.

    With fewer than 64 to write, all are put aside first and copied from there.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, index, count, number, skipped, seed, call, rounds = arguments
        array = context.make_array(signature.args[0])(context, builder, out)
        place = builder.gep(array.data, [index])
        aside = cgutils.alloca_once(builder, _WORD, size=GROUP)
        whole = builder.icmp_signed("==", count, ir.Constant(_LANE, GROUP))
        target = builder.bitcast(builder.select(whole, place, aside), _WORDS.as_pointer())
        vectors = _in_order(builder, _sixteen_blocks(builder, number, seed, call, rounds))
        for i, vector in enumerate(vectors):
            builder.store(vector, builder.gep(target, [ir.Constant(_LANE, i)]), align=4)
        with builder.if_then(builder.not_(whole)):
            cgutils.raw_memcpy(builder, place, builder.gep(aside, [skipped]), count, 4, align=4)
        return context.get_dummy_value()

    signed, unsigned = types.int64, types.uint64
    return types.void(out, signed, signed, unsigned, signed, unsigned, unsigned, signed), generate


@compiled
def fill_words(out: Any, first: Any, seed: Any, call: Any) -> None:
    """Fill ``out`` (count,) uint32 with the words of elements ``first``, ``first + 1``, ...; the numbers are uint64."""
    number = first >> np.uint64(2)
    skipped: Any = np.int64(first & np.uint64(3))  # the first words of a block may belong to others
    done = 0
    while done < out.size:
        count = min(GROUP - skipped, out.size - done)
        fill_group(out, done, count, number, skipped, seed, call, ROUNDS)
        done += count
        number += np.uint64(BLOCKS)
        skipped = 0


@parallel
def _fill_words(out: Any, first: Any, seed: Any, call: Any) -> None:
    for chunk in prange((out.size + CHUNK - 1) // CHUNK):
        begin = chunk * CHUNK
        fill_words(out[begin : begin + CHUNK], first + np.uint64(begin), seed, call)


def words(count: int, *, seed: int, call: int, first: int = 0, xp: ModuleType) -> Array:
    out: Array = np.empty(count, dtype=np.uint32)
    fill = fill_words if count <= SMALL else _fill_words
    fill(out, np.uint64(first), np.uint64(seed), np.uint64(call))
    return out


@compiled
def _fill_each(out: Any, blocks: Any, calls: Any, seed: Any, rounds: Any) -> None:
    for i in range(blocks.size):
        fill_group(out, 4 * i, 4, blocks[i], 0, seed, calls[i], rounds)


def philox4x32(counter: tuple[Array, Array, Array, Array], key: tuple[int, int], rounds: int = ROUNDS) -> list[Array]:
    """The reference's building block; here it serves the tests, which know its answers for some counters."""
    c0, c1, c2, c3 = counter
    out = np.empty((c0.size, 4), dtype=np.uint32)
    blocks, calls = (c0 | c1 << 32).reshape(-1), (c2 | c3 << 32).reshape(-1)
    _fill_each(out.reshape(-1), blocks, calls, np.uint64(key[0] | key[1] << 32), rounds)
    return [out[:, word].astype(np.uint64).reshape(c0.shape) for word in range(4)]
