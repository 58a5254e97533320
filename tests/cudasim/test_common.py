"""``common.cuh``: conversions bit for bit, random bits, reductions, packs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cudasim_files import on_device
from simulator import needs_device

from minitl.kernels.philox.reference import words

pytestmark = needs_device
ORDERS = ("ascending", "descending", "random", "warps")
NUMPY = {"float": np.float32, "__half": np.float16, "__nv_bfloat16": np.uint16, "double": np.float64}


def convert(x: np.ndarray, source: str, target: str) -> np.ndarray:
    y = np.empty(x.shape, NUMPY[target])
    on_device("pieces.cu").kernel(f"convert<{source}, {target}>")((4,), (256,), (x, y, np.int32(x.size)))
    return y


def bfloat16_to_float(bits: np.ndarray) -> np.ndarray:
    """A bfloat16 is the upper half of a float."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def float_to_bfloat16(x: np.ndarray) -> np.ndarray:
    """To the nearest, ties to even: half of the last place is added, less a bit if that is even; NaN is 0x7fff."""
    bits = x.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FFF), rounded)


def floats() -> np.ndarray:
    """Random bits, each number that is half way between two halves or bfloat16s, and the numbers beside it."""
    generator = np.random.default_rng(0)
    random = generator.integers(0, 2**32, 200_000, dtype=np.uint32)
    halves = generator.standard_normal(50_000).astype(np.float32) * np.float32(2.0) ** generator.integers(
        -30, 18, 50_000
    )
    patterns = np.arange(2**16, dtype=np.uint32)
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity are among them
        below, above = patterns.astype(np.uint16).view(np.float16), (patterns + 1).astype(np.uint16).view(np.float16)
        ties = (below.astype(np.float32) + above.astype(np.float32)) / 2
    ties_of_both = np.concatenate([ties.view(np.uint32), patterns << 16 | 0x8000])
    near = [ties_of_both + np.uint32(step) for step in (0, 1, 2**32 - 1)]
    return np.concatenate([random, halves.view(np.uint32), *near]).view(np.float32)


def assert_same_bits(found: np.ndarray, wanted: np.ndarray, nan: np.ndarray) -> None:
    """The same bits, but for NaN, of which there are many; there ``found`` must be one as well."""
    integers = np.dtype(f"u{found.dtype.itemsize}")
    np.testing.assert_array_equal(found.view(integers)[~nan], wanted.view(integers)[~nan])
    assert nan.any()


def test_all_halves_to_float() -> None:
    x = np.arange(2**16, dtype=np.uint16).view(np.float16)
    y = convert(x, "__half", "float")
    assert_same_bits(y, x.astype(np.float32), np.isnan(x))
    assert np.isnan(y[np.isnan(x)]).all()


def test_floats_to_half() -> None:
    x = floats()
    y = convert(x, "float", "__half")
    with np.errstate(over="ignore"):
        assert_same_bits(y, x.astype(np.float16), np.isnan(x))
    np.testing.assert_array_equal(y[np.isnan(x)].view(np.uint16), 0x7FFF)


def test_all_halves_there_and_back() -> None:
    x = np.arange(2**16, dtype=np.uint16).view(np.float16)
    assert_same_bits(convert(convert(x, "__half", "float"), "float", "__half"), x, np.isnan(x))


def test_all_bfloat16s_to_float() -> None:
    x = np.arange(2**16, dtype=np.uint16)
    np.testing.assert_array_equal(convert(x, "__nv_bfloat16", "float").view(np.uint32), x.astype(np.uint32) << 16)


def test_floats_to_bfloat16() -> None:
    x = floats()
    np.testing.assert_array_equal(convert(x, "float", "__nv_bfloat16"), float_to_bfloat16(x))


@pytest.mark.parametrize("kind", ["half", "bfloat16"])
def test_pairs_lie_with_the_first_value_low(kind: str) -> None:
    x = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    registers = {name: np.zeros(32, np.uint32) for name in ("half", "bfloat16")}
    on_device("pieces.cu").kernel("pack_pairs")((1,), (32,), (x, registers["half"], registers["bfloat16"]))
    bits = x.astype(np.float16).view(np.uint16) if kind == "half" else float_to_bfloat16(x)
    np.testing.assert_array_equal(registers[kind], bits[::2].astype(np.uint32) | bits[1::2].astype(np.uint32) << 16)


@pytest.mark.parametrize(
    ("seed", "call", "first"),
    [(0, 0, 0), (2**64 - 1, 2**64 - 1, 3), (0x299F31D0A4093822, 7, 2**33 + 1), (5, 2**32, 2**34 - 500)],
)
def test_philox_is_the_reference(seed: int, call: int, first: int) -> None:
    found = np.zeros(1000, np.uint32)
    arguments = (found, np.uint64(seed), np.uint64(call), np.uint64(first), np.int32(1000))
    on_device("pieces.cu").kernel("random_words")((8,), (128,), arguments, order="random")
    np.testing.assert_array_equal(found, words(1000, seed=seed, call=call, first=first, xp=np))


@pytest.mark.parametrize("threads", [32, 96, 1024])
@pytest.mark.parametrize("kind", ["float", "__half", "__nv_bfloat16", "double"])
def test_reductions(kind: str, threads: int) -> None:
    generator = np.random.default_rng(threads)
    for columns in (1, 31, 32, 33, 997):
        exact = generator.standard_normal((3, columns)).astype(np.float32)
        x: Any = float_to_bfloat16(exact) if kind == "__nv_bfloat16" else exact.astype(NUMPY[kind])
        wide = np.float64 if kind == "double" else np.float32
        seen = []
        for order in ORDERS:
            sums, maxima = np.zeros(3, wide), np.zeros(3, wide)
            name = f"row_sum_and_maximum<{kind}, {threads}>"
            on_device("pieces.cu").kernel(name)((3,), (threads,), (x, sums, maxima, np.int32(columns)), order=order)
            seen.append((sums, maxima))
        rows = (bfloat16_to_float(x) if kind == "__nv_bfloat16" else x).astype(np.float64)
        # columns / threads + 10 additions follow one another, each rounds by half an eps of at most the sum of sizes
        roundings = columns / threads + 10
        bound = roundings * np.finfo(wide).eps / 2 * np.abs(rows).sum(axis=1)
        for sums, maxima in seen:
            assert (np.abs(sums - rows.sum(axis=1)) <= bound).all(), (columns, sums, rows.sum(axis=1))
            np.testing.assert_array_equal(maxima, rows.max(axis=1))
            np.testing.assert_array_equal(sums, seen[0][0], err_msg="the sum depends on the order of the threads")


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("float", np.float32),
        ("__half", np.float16),
        ("__nv_bfloat16", np.uint16),
        ("double", np.float64),
        ("unsigned char", np.uint8),
    ],
)
def test_packs(kind: str, dtype: Any) -> None:
    length = 16 // np.dtype(dtype).itemsize
    x = np.arange(100 * length).astype(dtype)
    y = np.zeros(x.size, dtype)
    on_device("pieces.cu").kernel(f"copy_packs<{kind}>")((1,), (128,), (x, y, np.int32(x.size - length)))
    np.testing.assert_array_equal(y[:-length], x[:-length])
    np.testing.assert_array_equal(y[-length:], 0)


@pytest.mark.parametrize("order", ORDERS)
def test_reductions_right_behind_each_other(order: Any) -> None:
    """A warp that is early must not overwrite what another still reads of the reduction before."""
    wrong = np.zeros(50, np.float32)
    on_device("pieces.cu").kernel("wrong_sums")((1,), (64,), (wrong, np.int32(50)), order=order)
    np.testing.assert_array_equal(wrong, 0)
