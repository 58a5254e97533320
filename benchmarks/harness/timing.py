"""Timing inside a worker."""

import statistics
import time
from collections.abc import Callable

SECONDS = 0.12  # spent on one function in one round


def repeat(function: Callable[[], tuple[float, ...]], seconds: float = SECONDS) -> tuple[float, ...]:
    """Call a function that returns times, over and over, and return the median of each.

    The first call is not counted: it may load code and touch memory for the first time.
    """
    function()
    results = []
    end = time.perf_counter() + seconds
    while len(results) < 3 or (time.perf_counter() < end and len(results) < 1000):
        results.append(function())
    return tuple(statistics.median(column) for column in zip(*results, strict=True))


def seconds_of(function: Callable[[], object]) -> float:
    """Return the median time of one call."""

    def timed() -> tuple[float]:
        start = time.perf_counter()
        function()
        return (time.perf_counter() - start,)

    return repeat(timed)[0]
