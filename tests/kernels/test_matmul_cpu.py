"""The matrix product on processors that are not this one, and the parts of it that other tests do not reach."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
from llvmlite import binding, ir

from minitl.kernels.matmul import cpu, reference, tile
from minitl.kernels.processor import processor
from minitl.random import Generator

SHAPES = [(1, 1, 1), (7, 33, 47), (8, 48, 48), (9, 17, 49), (33, 1, 5), (100, 65, 101), (129, 300, 97), (640, 64, 200)]


def normal(seed: int, *shape: int) -> np.ndarray:
    return Generator(seed).normal(shape).astype(np.float32)


def check_all_shapes(bfloat16s: tuple[bool, ...] = (False, True)) -> None:
    """Every shape, transposed or not, adding or not, with bias or not, float32 and bfloat16, against the reference."""
    for m, k, n in SHAPES:
        for transpose_a, transpose_b, bfloat16 in itertools.product((False, True), (False, True), bfloat16s):
            a = normal(1, *((k, m) if transpose_a else (m, k)))
            b = normal(2, *((n, k) if transpose_b else (k, n)))
            options = {
                "transpose_a": transpose_a, "transpose_b": transpose_b, "bfloat16": bfloat16,
            }  # fmt: skip
            for extra in ({}, {"bias": normal(3, n)}, {"accumulate": True}):
                first, second = (
                    {"out": normal(4, m, n)} | extra if "accumulate" in extra else dict(extra) for _ in range(2)
                )
                result = cpu.matmul(a, b, **options, **first)
                wanted = reference.matmul(a, b, **options, **second)
                # two orders of K additions of numbers of size 1: sqrt(K) roundings of a sum of size sqrt(K)
                np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-6 * (2 + k), err_msg=f"{m, k, n} {options}")


def test_by_the_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "HAS_TILE", False)
    check_all_shapes()


def test_the_blas_gives_the_same_bits_whoever_takes_which_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "HAS_TILE", False)
    a, b = normal(1, 700, 90), normal(2, 90, 110)
    whole = cpu.matmul(a, b)
    parts = [cpu.matmul(a[start : start + 128], b) for start in range(0, 700, 128)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


@pytest.mark.skipif(processor().vector_bytes != 64, reason="this processor has AVX2 anyway, or not even that")
def test_with_the_registers_of_avx2() -> None:
    """The same file, compiled in a process that is told to be an older processor."""
    done = subprocess.run(
        [sys.executable, __file__], env=os.environ | {"NUMBA_CPU_NAME": "haswell"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "32 (6, 2) False\n"


def assembly(kind: ir.Type, processor_name: str) -> str:
    """The tile's instructions for a processor, which need not be this one: nothing is run."""
    module = ir.Module()
    module.triple = "x86_64-unknown-linux-gnu"
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [tile.I64] * 10), "tile")
    builder = ir.IRBuilder(function.append_basic_block())
    tile.write_tile(builder, 8, 3, ir.VectorType(kind, 16), *function.args)
    builder.ret_void()
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple(module.triple).create_target_machine(cpu=processor_name, opt=3)
    return str(machine.emit_assembly(binding.parse_assembly(str(module))))


def test_bfloat16_becomes_the_one_instruction_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """24 sums in registers, 24 instructions, and none of them spilled to the stack."""
    monkeypatch.setattr(tile, "HAS_BFLOAT16", True)
    monkeypatch.setattr(tile, "VECTOR_BYTES", 64)
    for name in ("znver4", "cooperlake", "sapphirerapids"):
        text = assembly(tile.I32, name)
        assert text.count("vdpbf16ps") == 24, name
        assert "zmm" in text


@pytest.mark.parametrize(("name", "instruction"), [("znver4", "vfmadd"), ("icelake-server", "vfmadd")])
def test_float32_is_one_fused_instruction_a_sum(name: str, instruction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile, "VECTOR_BYTES", 64)
    assert assembly(ir.FloatType(), name).count(instruction) == 24


def test_without_the_instruction_bfloat16_is_still_right() -> None:
    check_all_shapes()


SPECIAL = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x7F800000, 0x7FC00000, 0x7FFFFFFF, 0x7F800001], np.uint32)
ROUNDED = np.array([0x3F80, 0x3F82, 0x3F81, 0x7F80], np.uint32) << 16  # ties to even, up, infinity; the others are NaN


@pytest.mark.parametrize("kernel", [cpu, reference])
@pytest.mark.parametrize("size", [7, 128])  # too small for a vector, and whole vectors only
def test_bfloat16_rounds_ties_to_even_and_keeps_nan(kernel: ModuleType, size: int) -> None:
    """In every way in which an operand is copied: a and b, as they are and transposed, by vectors and one by one."""
    x, identity = np.zeros((size, size), np.float32), np.eye(size, dtype=np.float32)
    np.fill_diagonal(x, SPECIAL[np.arange(size) % 7].view(np.float32))
    for a, b in ((x, identity), (identity, x)):
        for transpose_a, transpose_b in itertools.product((False, True), repeat=2):
            with np.errstate(invalid="ignore"):  # infinity times 0, beside the diagonal; and a signalling NaN signals
                product = kernel.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b, bfloat16=True)
            for number, found in enumerate(np.diagonal(product)):
                if number % 7 < 4:
                    assert found.view(np.uint32) == ROUNDED[number % 7], (number, transpose_a, transpose_b)
                else:
                    assert np.isnan(found), (number, transpose_a, transpose_b)


if __name__ == "__main__":
    check_all_shapes((False,))
    print(tile.VECTOR_BYTES, (tile.ROWS, tile.VECTORS), tile.HAS_BFLOAT16)
