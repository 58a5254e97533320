"""In which precision a model's matrix products are computed: float32, or bfloat16 with sums in float32.

bfloat16 is a float32 without its lower 16 bits: the same range, 8 bits of precision. Processors and GPUs that have it
multiply it at two to sixteen times the speed of float32. What needs precision are the small differences that add up,
so only the operands of the linear layers' products are rounded: their sums, everything else, the parameters, gradients
and saved files stay float32. (Kalamkar et al. 2019, "A Study of BFLOAT16 for Deep Learning Training".)

So bfloat16 is a policy for computing, and no dtype of a Tensor:

    with minitl.precision("auto"):
        step = train_step(model, [batch], optimizer)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from minitl.errors import PrecisionError
from minitl.kernels.processor import processor
from minitl.kernels.select import select

CHOICES = ("float32", "bfloat16", "auto")


@dataclass(frozen=True)
class Precision:
    """A policy.

    Attributes:
        compute: ``"float32"``, where operands are multiplied as they are (float64 ones too); or ``"bfloat16"``, where
            the float32 operands of linear layers are rounded to it first.
    """

    compute: str = "float32"


_FLOAT32 = Precision()
_current: ContextVar[Precision] = ContextVar("precision", default=_FLOAT32)


def current_precision() -> Precision:
    """Return the policy that holds here."""
    return _current.get()


@contextmanager
def precision(compute: str) -> Iterator[Precision]:
    """Choose the precision of linear layers inside a ``with`` block.

    An operation that was recorded in the block is differentiated in the same precision, wherever ``backward()`` is
    called. The choice is a context variable: it holds for the current thread and for the tasks started from it.

    Args:
        compute: ``"float32"``; ``"bfloat16"``; or ``"auto"``, which is bfloat16 where this processor multiplies it in
            hardware (AVX512-BF16: Intel from Cooper Lake and Sapphire Rapids on, AMD from Zen 4 on) and float32 on all
            others. With the reference kernels, which only imitate it, "bfloat16" works everywhere and "auto" is
            float32.

    Raises:
        ValueError: another word.
        PrecisionError: "bfloat16" on a processor without it.

    >>> with precision("float32") as policy:
    ...     policy.compute
    'float32'
    """
    if compute not in CHOICES:
        raise ValueError(f"precision takes {', '.join(map(repr, CHOICES))}, not {compute!r}")
    token = _current.set(Precision(_resolved(compute)))
    try:
        yield _current.get()
    finally:
        _current.reset(token)


def _resolved(compute: str) -> str:
    """Return what "auto" stands for here; refuse bfloat16 where there is none."""
    if compute == "float32":
        return compute
    imitated = select("matmul", "cpu").__name__.endswith(".reference")
    if compute == "auto":
        return "bfloat16" if not imitated and processor().bfloat16 else "float32"
    if not imitated and not processor().bfloat16:
        raise PrecisionError(
            "precision 'bfloat16' needs a processor that multiplies it (AVX512-BF16, in /proc/cpuinfo avx512_bf16), "
            "and this one does not; use 'float32', or 'auto', which takes bfloat16 only where it is. To see what "
            "rounding does to a model, at reference speed, go around it with minitl.use_kernels('reference')"
        )
    return compute


def products_in_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Tell a linear layer whether to round its operands, which are of this dtype.

    Raises:
        TypeError: the policy is bfloat16 and the operands are not float32. A float64 model is there for its
            precision; rounding it in silence would give it the appearance of one.
    """
    if _current.get().compute != "bfloat16":
        return False
    if dtype != np.float32:
        raise TypeError(
            f"bfloat16 computes for float32 models, these operands are {dtype}; convert the model with "
            ".to(dtype='float32'), or compute it under minitl.precision('float32')"
        )
    return True
