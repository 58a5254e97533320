"""Random numbers that are the same everywhere: a seed, a call counter, and the Philox kernel.

A :class:`Generator` has no hidden state: (seed, call) is all of it, so saving two integers resumes it exactly. Each
dropout site takes one call per training forward; within a call, bits are addressed by element number. See
``kernels/philox``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np

from minitl.kernels.launch import Array
from minitl.kernels.philox.device_call import DeviceCall
from minitl.kernels.select import select

# Calls from 2^63 up never collide with a generator's own, which count from 0: data order has its own half of the
# counter.
_ORDER_CALLS = 2**63


def _check_seed(seed: int) -> int:
    """Return ``seed`` as a Python int: a NumPy integer would not mix with Philox's uint64 words."""
    seed = operator.index(seed)
    if not 0 <= seed < 2**64:
        raise ValueError(f"a seed is an integer in [0, 2^64), got {seed}")
    return seed


@dataclass
class Generator:
    """A source of random calls: ``seed`` is the 64-bit Philox key, ``call`` the number of the next use."""

    seed: int = 0
    call: int = 0

    def __post_init__(self) -> None:
        self.seed, self.call = _check_seed(self.seed), operator.index(self.call)
        if not 0 <= self.call < _ORDER_CALLS:
            raise ValueError(f"a generator's call counter is in [0, 2^63), got {self.call}")

    def next_call(self) -> tuple[int, int]:
        """Return (seed, call) for one use and move on to the next call."""
        call = self.call
        self.call += 1
        base = _base_call.get()
        return self.seed, call if base is None else DeviceCall(call - base.first, base.array)

    def normal(self, shape: tuple[int, ...], *, std: float = 1.0) -> Array:
        """Return float64 normal numbers of mean 0 on the host, by the Box-Muller transform of one call's words."""
        count = math.prod(shape)
        pairs = (count + 1) // 2
        seed, call = self.next_call()
        bits = select("philox", "cpu").words(2 * pairs, seed=seed, call=call, xp=np)
        uniform = (bits.astype(np.float64) + 0.5) / 2**32  # inside (0, 1): its logarithm is finite
        radius = np.sqrt(-2 * np.log(uniform[:pairs]))
        angle = 2 * np.pi * uniform[pairs:]
        normals = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        return std * normals[:count].reshape(shape)


@dataclass(frozen=True)
class BaseCall:
    """The first call of a step, where a GPU can read it.

    Attributes:
        first: the generator's call as the step begins.
        array: (1,) uint64, on the device, which holds ``first`` when the step runs.
    """

    first: int
    array: Array


_base_call: ContextVar[BaseCall | None] = ContextVar("base_call", default=None)


@contextmanager
def calls_in_memory(base: BaseCall) -> Iterator[None]:
    """Let kernels in the block be told their calls as differences to ``base``, which they read when they run.

    What is recorded in the block (a CUDA graph) can run again with another number in ``base.array``.
    """
    token = _base_call.set(base)
    try:
        yield
    finally:
        _base_call.reset(token)


_default = Generator()


def default_generator() -> Generator:
    """Return the generator that dropout and parameter initialisation use unless given another."""
    return _default


def manual_seed(seed: int) -> Generator:
    """Set the default generator to ``seed`` with its call counter at 0, and return it.

    Raises:
        TypeError: the seed is no integer.
        ValueError: the seed is not in [0, 2^64).
    """
    _default.seed = _check_seed(seed)
    _default.call = 0
    return _default


def permutation(count: int, *, seed: int, stream: int) -> Array:
    """Return a random order of ``range(count)``, a pure function of its arguments: int64 (count,).

    Args:
        count: how many.
        seed: 64-bit key.
        stream: number of this permutation under the seed, for example the epoch; 0 <= stream < 2^63.
    """
    seed, stream = _check_seed(seed), operator.index(stream)
    if not 0 <= stream < 2**63:
        raise ValueError(f"stream must be in [0, 2^63), got {stream}")
    bits = select("philox", "cpu").words(2 * count, seed=seed, call=_ORDER_CALLS + stream, xp=np).astype(np.uint64)
    keys = bits[:count] << np.uint64(32) | bits[count:]
    return np.argsort(keys, kind="stable")
