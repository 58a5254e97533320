"""Philox4x32-10: random bits as a pure function of a key and a counter.

Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (2011). Ten rounds of multiply, exchange
halves and xor turn a 128-bit counter into four 32-bit words. Nothing is carried from one element to the next, so any
device may compute any element in any order and finds the same bits.

minitl's convention: the key is the 64-bit seed; the counter is (block low, block high, call low, call high), where
element ``i`` lives in block ``i // 4`` as word ``i % 4``. ``call`` numbers the uses of one seed: each dropout site
takes one.
"""

from __future__ import annotations

from types import ModuleType

from minitl.kernels.launch import Array

MULTIPLIER_0, MULTIPLIER_2 = 0xD2511F53, 0xCD9E8D57
KEY_STEP_0, KEY_STEP_1 = 0x9E3779B9, 0xBB67AE85  # golden ratio, sqrt(3) - 1: the key changes each round
MASK = 0xFFFFFFFF
CHUNK = 2**13  # blocks at a time: forty passes over arrays that stay in a CPU's cache, four times as fast


def philox4x32(counter: tuple[Array, Array, Array, Array], key: tuple[int, int], rounds: int = 10) -> list[Array]:
    """Return the four output words of each counter; words are held in uint64 arrays of one shape, values below 2^32."""
    c0, c1, c2, c3 = counter
    key_0, key_1 = key
    for _ in range(rounds):
        product_0 = c0 * MULTIPLIER_0  # 32 x 32 -> 64 bits
        product_2 = c2 * MULTIPLIER_2
        c0 = (product_2 >> 32) ^ c1 ^ key_0
        c1 = product_2 & MASK
        c2 = (product_0 >> 32) ^ c3 ^ key_1
        c3 = product_0 & MASK
        key_0 = (key_0 + KEY_STEP_0) & MASK
        key_1 = (key_1 + KEY_STEP_1) & MASK
    return [c0, c1, c2, c3]


def words(count: int, *, seed: int, call: int, first: int = 0, xp: ModuleType) -> Array:
    """Return the random words of elements ``first`` to ``first + count - 1`` of one call.

    Args:
        count: how many elements.
        seed: 64-bit key, 0 <= seed < 2^64.
        call: which use of the seed, 0 <= call < 2^64.
        first: number of the first element.
        xp: the array module to compute with.

    Returns:
        uint32 array (count,).
    """
    first_block = first // 4
    last_block = (first + count + 3) // 4
    output = xp.empty((last_block - first_block, 4), dtype=xp.uint32)
    for start in range(first_block, last_block, CHUNK):
        stop = min(start + CHUNK, last_block)
        block = xp.arange(start, stop, dtype=xp.uint64)
        constant = xp.zeros_like(block)
        counter = (block & MASK, block >> 32, constant + (call & MASK), constant + (call >> 32))
        for word, values in enumerate(philox4x32(counter, (seed & MASK, seed >> 32))):
            output[start - first_block : stop - first_block, word] = values
    skipped = first - 4 * first_block
    return output.reshape(-1)[skipped : skipped + count]
