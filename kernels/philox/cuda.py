"""Philox4x32-10 in CUDA; see philox.cu."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from minitl.kernels.launch import Array, array_module
from minitl.kernels.program import C_TYPES, THREADS, Program, blocks_for

ROUNDS = 10
PROGRAM = Program(__file__, [f"{name}<{C_TYPES['uint32']}>" for name in ("philox_words", "philox_counters")])


def words(count: int, *, seed: int, call: int, first: int = 0, xp: ModuleType) -> Array:
    out: Array = xp.empty(count, np.uint32)
    if count:
        numbers = np.int64(count), np.uint64(first), np.uint64(seed), np.uint64(call)
        PROGRAM.launch("philox_words", out, blocks_for(count // 4 + 2), THREADS, out, *numbers)
    return out


def philox4x32(counter: tuple[Array, Array, Array, Array], key: tuple[int, int], rounds: int = ROUNDS) -> list[Array]:
    """The reference's building block; here it serves the tests, which know its answers for some counters."""
    xp = array_module(counter[0])
    counters = xp.stack([c.reshape(-1) for c in counter], axis=-1).astype(np.uint32)
    out = xp.empty_like(counters)
    if len(counters):
        numbers = np.int64(len(counters)), np.uint64(key[0] | key[1] << 32), np.int32(rounds)
        PROGRAM.launch("philox_counters", out, blocks_for(len(counters)), THREADS, counters, out, *numbers)
    return [out[:, word].astype(np.uint64).reshape(counter[0].shape) for word in range(4)]
