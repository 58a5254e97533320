"""Every function of every implementation of every kernel against the contract (``kernels/README.md``).

The implementations are found, not listed: a file ``cpu.py`` or ``cuda.py`` beside a ``reference.py`` is tested by being
there. What is asserted stands in ``kernel_contract.py``, the calls in ``kernel_uses.py``, the right answers in
``kernel_gold.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_contract import assert_contract, assert_errors, assert_integer_widths, assert_non_finite, assert_results
from kernel_implementations import Implementation, everywhere, implementations
from kernel_mistakes import mistakes
from kernel_uses import BUILDERS, LONG_SENTENCES, SMALL, WITHOUT_USE, sizes, uses
from test_kernel_signatures import SIGNATURES

import minitl.kernels
from minitl.kernels import compiled

each_implementation = pytest.mark.parametrize("implementation", everywhere(), ids=str)


def test_every_function_is_called() -> None:
    called = {use.name for folder in BUILDERS for use in uses(folder, *SMALL)}
    assert called | WITHOUT_USE == set(SIGNATURES)


@each_implementation
def test_results(implementation: Implementation) -> None:
    for rows, columns in sizes(implementation.folder):
        for use in uses(implementation.folder, rows, columns):
            assert_results(implementation, use, np.float32)
            assert_results(implementation, use, np.float64)


@each_implementation
@settings(max_examples=10)
@given(rows=st.integers(0, 40), columns=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_results_anywhere(implementation: Implementation, rows: int, columns: int, seed: int) -> None:
    if implementation.folder == "attention":
        columns = min(columns, 13)
    for use in uses(implementation.folder, rows, columns, seed):
        assert_results(implementation, use, np.float32)


@each_implementation
def test_errors(implementation: Implementation) -> None:
    for use in uses(implementation.folder, *SMALL):
        assert_errors(implementation, use)


@each_implementation
def test_nan_and_infinity_come_out(implementation: Implementation) -> None:
    for use in uses(implementation.folder, *SMALL):
        assert_non_finite(implementation, use)


@each_implementation
def test_integers_of_any_width(implementation: Implementation) -> None:
    for use in uses(implementation.folder, *LONG_SENTENCES):
        assert_integer_widths(implementation, use)


@pytest.mark.parametrize("folder", BUILDERS)
def test_arrays_of_another_library(folder: str, strict_device: str) -> None:
    """All of it holds for the references on arrays that refuse what a GPU's would."""
    reference = implementations(folder)[0].module
    assert_contract(Implementation(reference, strict_device), [(5, 2)], SIGNATURES)


def test_mistakes_are_of_every_kind() -> None:
    """As many as there are, so that an empty list cannot pass."""
    all_uses = [use for folder in BUILDERS for use in uses(folder, *SMALL)]
    made = [mistake.what for use in all_uses for mistake in mistakes(use, use.arguments)]
    for kind, fewest in {
        "all complex64": 30, "float32": 70, "bytes swapped": 100, "unaligned": 100, "strided": 100, "transposed": 50,
        "dimension more": 90, "with more": 120, "with one": 120, " = ": 60, "cu_seqlens": 30,
    }.items():  # fmt: skip
        assert sum(kind in what for what in made) >= fewest, kind


def fast_math(text: str) -> list[str]:
    """Words that let a compiler assume there is neither NaN nor infinity."""
    return re.findall(r"fast[-_]?math|nnan|ninf|no-nans|no-infs|finite-math", text)


def test_no_fast_math() -> None:
    assert fast_math("@njit(fastmath=True)") == ["fastmath"]
    assert fast_math("options=('--use_fast_math',)") == ["fast_math"]
    folder = Path(minitl.kernels.__path__[0])
    files = [path for path in folder.rglob("*") if path.suffix in (".py", ".cu", ".cuh", ".h", ".cpp")]
    assert len(files) > 20
    for path in files:
        if path.name != "compiled.py":
            assert not fast_math(path.read_text()), path
    # the one file that says how functions are compiled: nothing but fused multiplications and reordered sums
    assert set(fast_math((folder / "compiled.py").read_text())) == {"fastmath"}
    assert {"contract"} == compiled.EXACT
    assert {"contract", "reassoc"} == compiled.IN_ANY_ORDER
    assert compiled.INSIDE["fastmath"] is compiled.EXACT
