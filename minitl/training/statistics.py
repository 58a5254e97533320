"""Mean and confidence interval of a few runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# The 0.975 quantile of Student's t distribution for 1, 2, 3, ... degrees of freedom (tests compute it by integration).
# fmt: off
T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)
# fmt: on
NORMAL_975 = 1.960


@dataclass(frozen=True)
class Summary:
    """Mean of some numbers, their standard deviation, and half the width of the mean's 95 % interval.

    Attributes:
        mean: of the numbers.
        deviation: their sample standard deviation; NaN for one number.
        half_width: the interval is mean plus and minus this; NaN for one number.
        count: how many.
    """

    mean: float
    deviation: float
    half_width: float
    count: int

    def __str__(self) -> str:
        if self.count == 1:
            return f"{self.mean:.4f} (one run; no interval)"
        return f"{self.mean:.4f} +- {self.half_width:.4f} (95 % interval of the mean of {self.count} runs)"


def summarize(values: Sequence[float]) -> Summary:
    """Return the summary of at least one number, by Student's t distribution (Student 1908).

    >>> print(summarize([0.433, 0.447, 0.452]))
    0.4440 +- 0.0245 (95 % interval of the mean of 3 runs)
    """
    count = len(values)
    if count == 0:
        raise ValueError("there is nothing to summarize")
    mean = math.fsum(values) / count
    if count == 1:
        return Summary(mean, math.nan, math.nan, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    quantile = T_975[count - 2] if count - 2 < len(T_975) else NORMAL_975
    return Summary(mean, deviation, quantile * deviation / math.sqrt(count), count)
