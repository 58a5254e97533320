"""What every implementation of a kernel owes: assertions, which take the implementation and a use of it.

They know nothing of any one kernel. ``test_kernel_plants.py`` shows that each of them can fail.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
from kernel_implementations import Implementation, call, implementations, prepared, signatures
from kernel_mistakes import mistakes
from kernel_uses import LONG_SENTENCES, SMALL, Use, arrays_of, changed, uses

# A Python number, in double precision whatever comes in.
RETURNS_A_NUMBER = {"adamw.global_norm"}
INTEGERS = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "uint64")


def assert_signatures(module: ModuleType, table: dict[str, str]) -> None:
    """The functions of the table, with its parameters, order, keywords and defaults, and no other functions."""
    folder = module.__name__.split(".")[-2]
    wanted = {name: text for name, text in table.items() if name.startswith(f"{folder}.")}
    assert signatures(module) == wanted, f"{module.__name__}: other signatures"


def results_of(implementation: Implementation, use: Use, arguments: dict[str, Any]) -> list[np.ndarray | None]:
    """What a right call gives, as many results as the gold has; a warning of NumPy's is an error."""
    try:
        results = call(implementation, use, arguments)
    except Exception as error:
        raise AssertionError(f"{implementation}: {use} raised {error!r}") from error
    assert len(results) == len(use.gold), f"{implementation}: {use}: {len(results)} results, not {len(use.gold)}"
    return results


def assert_results(implementation: Implementation, use: Use, dtype: Any) -> None:
    """The gold's values and shapes, in the dtype of the arguments; arguments stay as they were.

    16 eps of the largest element for elementary functions and short sums; the roundings of a long sum wander off like
    the square root of its length. The largest of all, measured: 10 eps of short sums, 13 of sums of 1,025.
    """
    arguments = prepared(use.arguments, dtype, implementation.device)
    before = prepared(arguments, dtype, "cpu")
    results = results_of(implementation, use, arguments)
    longest = max((max(array.shape, default=1) for _, array in use.floats()), default=1)
    allowed = (16 + math.sqrt(longest)) * np.finfo(dtype).eps
    for number, (result, wanted) in enumerate(zip(results, use.gold, strict=True)):
        where = f"{implementation}: {use}, result {number}"
        if result is None or wanted is None:
            assert result is wanted, where
            continue
        assert result.shape == wanted.shape, f"{where}: shape {result.shape}, not {wanted.shape}"
        if wanted.dtype.kind != "f":
            np.testing.assert_array_equal(result, wanted, where, strict=True)
            continue
        assert result.dtype == dtype or use.name in RETURNS_A_NUMBER, f"{where}: {result.dtype} from {dtype}"
        scale = np.abs(wanted).max(initial=0.0)
        error = np.abs(result - wanted).max(initial=0.0)
        assert error <= allowed * scale, f"{where}: wrong by {error:.3g}, {error / scale:.3g} of the largest"
    after = prepared(arguments, dtype, "cpu")
    for (place, old), (_, new) in zip(arrays_of(before), arrays_of(after), strict=True):
        if place not in use.writes:
            np.testing.assert_array_equal(new, old, f"{implementation}: {use} has written {place}")


def assert_non_finite(implementation: Implementation, use: Use) -> None:
    """NaN and infinities come out exactly where the gold has them, and from every argument."""
    for place, array in use.floats():
        if place == "out" and use.arguments.get("accumulate") is False:
            continue  # it is overwritten
        escaped = False
        for element in range(0, array.size, max(1, array.size // 12)):
            for value in (np.nan, np.inf, -np.inf):

                def poisoned(array: np.ndarray, element: int = element, value: float = value) -> np.ndarray:
                    copy = array.copy()
                    copy.reshape(-1)[element] = value
                    return copy

                arguments = changed(use.arguments, place, poisoned)
                golds = use.gold_of(arguments)
                with np.errstate(all="ignore"):
                    results = results_of(implementation, use, prepared(arguments, np.float64, implementation.device))
                pattern = np.isnan if np.isnan(value) else np.isfinite
                for number, (result, wanted) in enumerate(zip(results, golds, strict=True)):
                    if result is not None and wanted is not None:
                        where = f"{implementation}: {use}, {value} in {place} at {element}: result {number}"
                        np.testing.assert_array_equal(pattern(result), pattern(wanted), where)
                        escaped = escaped or not np.isfinite(result).all()
        assert escaped, f"{use}: nothing from {place} shows"


def assert_integer_widths(implementation: Implementation, use: Use) -> None:
    """Integers of any width give the same bits: nothing is computed in them, where 16 * 16 may overflow."""
    arguments = prepared(use.arguments, np.float64, implementation.device)
    wanted = results_of(implementation, use, prepared(arguments, np.float64, implementation.device))
    for place, array in arrays_of(use.arguments):
        for dtype in INTEGERS if array.dtype == np.int64 else ():
            if (array.astype(dtype) == array).all():
                narrow = changed(use.arguments, place, lambda array, dtype=dtype: array.astype(dtype))
                results = results_of(implementation, use, prepared(narrow, np.float64, implementation.device))
                for result, other in zip(results, wanted, strict=True):
                    np.testing.assert_array_equal(result, other, f"{implementation}: {use}, {place} as {dtype}")


def assert_errors(implementation: Implementation, use: Use) -> None:
    """Every mistake raises what the reference raises, with the same words, before anything is written."""
    reference = implementations(implementation.folder)[0]
    for mistake in mistakes(use, prepared(use.arguments, np.float64, implementation.device)):
        where = f"{implementation}: {use}, {mistake.what}"
        before = prepared(mistake.arguments, np.float64, "cpu")
        error = raised(implementation, use, mistake.arguments)
        assert type(error) is mistake.error, f"{where}: {error!r}, not a {mistake.error.__name__}"
        assert all(word in str(error) for word in mistake.words), f"{where}: {error} without one of {mistake.words}"
        same = implementation.is_reference or str(error) == str(raised(reference, use, mistake.arguments))
        assert same, f"{where}: not the reference's words, {error}"
        after = prepared(mistake.arguments, np.float64, "cpu")
        for name in use.writes:
            np.testing.assert_array_equal(after[name], before[name], f"{where}: {name} was written")


def raised(implementation: Implementation, use: Use, arguments: dict[str, Any]) -> Exception | None:
    try:
        call(implementation, use, arguments)
    except Exception as error:
        return error
    return None


def assert_contract(implementation: Implementation, sizes: list[tuple[int, int]], table: dict[str, str]) -> None:
    """All of it, in the order in which a mistake is best explained."""
    assert_signatures(implementation.module, table)
    for rows, columns in sizes:
        for use in uses(implementation.folder, rows, columns):
            assert_results(implementation, use, np.float32)
            assert_results(implementation, use, np.float64)
    for use in uses(implementation.folder, *SMALL):
        assert_errors(implementation, use)
        assert_non_finite(implementation, use)
    for use in uses(implementation.folder, *LONG_SENTENCES):
        assert_integer_widths(implementation, use)
