"""What this processor can do, asked before anything is compiled: LLVM ends the process when it is given an instruction
that the processor lacks.
"""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass


@dataclass(frozen=True)
class Processor:
    """The vector instructions that kernels are written for.

    Attributes:
        vector_bytes: of one vector register, 64 (AVX-512), 32 (AVX2 with FMA), or 0 for any other processor.
        bfloat16: whether there is an instruction for dot products of bfloat16 pairs (``avx512_bf16``).
    """

    vector_bytes: int
    bfloat16: bool


@functools.cache
def processor() -> Processor:
    """Return what Numba compiles for: the processor of this machine, unless ``NUMBA_CPU_NAME`` names another.

    Of a named one no feature is known for sure; it is taken to have AVX2 where this machine has it.
    """
    from llvmlite import binding
    from numba.core import config

    if platform.machine().lower() not in ("x86_64", "amd64"):
        return Processor(0, False)
    features = binding.get_host_cpu_features()  # also asks whether the operating system saves the registers
    if not (features.get("avx2") and features.get("fma")):
        return Processor(0, False)
    if config.CPU_NAME or config.CPU_FEATURES or not features.get("avx512f"):
        return Processor(32, False)
    return Processor(64, bool(features.get("avx512bf16")))
