"""A simulator of the CUDA model: kernels written for a GPU run on the CPU, on NumPy arrays.

    module = cudasim.Module("row_sum.cu", ["row_sum<float, 128>"])
    kernel = module.kernel("row_sum<float, 128>")
    kernel((rows,), (128,), (x, y, np.int32(columns)), shared_memory=0)

The ``.cu`` file is the one that NVRTC compiles for a GPU; here the C++ compiler of this machine compiles it with the
headers in ``include/``, where the threads of a block take turns. ``include/cudasim.h`` says how, docs/cudasim.md how to
use it: to test kernels where there is no GPU, to be told of mistakes that a GPU answers with garbage, and to watch.
"""

from __future__ import annotations

from minitl.kernels.cudasim.compiler import find_compiler
from minitl.kernels.cudasim.errors import BuildError, CompilerNotFound, KernelError, SimulatorError
from minitl.kernels.cudasim.module import Kernel, Module, Schedule, schedule
from minitl.kernels.cudasim.source import flatten
from minitl.kernels.cudasim.tracing import Barrier, Trace, Watched, trace

__all__ = [
    "Barrier",
    "BuildError",
    "CompilerNotFound",
    "Kernel",
    "KernelError",
    "Module",
    "Schedule",
    "SimulatorError",
    "Trace",
    "Watched",
    "find_compiler",
    "flatten",
    "schedule",
    "trace",
]
