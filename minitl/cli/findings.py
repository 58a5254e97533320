"""What ``minitl doctor`` finds on a machine: programs, libraries, processors; nothing is computed here."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minitl import kernels
from minitl._version import __version__
from minitl.kernels import nvrtc
from minitl.kernels.cudasim import CompilerNotFound, find_compiler
from minitl.kernels.launch import cuda_problem, cupy_or_none
from minitl.kernels.processor import processor
from minitl.kernels.select import select


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: of what was looked at.
        text: what was found, or why there is nothing and what to do about it.
        state: ``"ok"``; ``"absent"``, which is no fault; or ``"broken"``.
    """

    name: str
    text: str
    state: str = "ok"


def version(package: str) -> str:
    """Return the version of an installed package, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def software() -> Iterator[Finding]:
    """Python, NumPy, and what the CPU's kernels are made of."""
    yield Finding("minitl", f"{__version__}, in {Path(kernels.__file__).parent}")
    yield Finding("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    yield Finding("NumPy", f"{version('numpy')}, {_blas()}")
    yield Finding("processor", _processor())
    kind = select("matmul", "cpu").__name__.rpartition(".")[2]
    how = f"compiled by Numba {version('numba')}" if kind == "cpu" else "plain NumPy, as the environment asks for"
    yield Finding("kernels on the CPU", f"{how}, for {_threads()}")


def graphics() -> Iterator[Finding]:
    """What runs CUDA kernels: a GPU, its compiler, the simulator."""
    yield _gpu()
    try:
        nvrtc.check()
        yield Finding("NVRTC", f"{version('nvidia-cuda-nvrtc')}, with headers")
    except nvrtc.NvrtcError as error:
        yield Finding("NVRTC", str(error), "absent")
    try:
        yield Finding("simulator", find_compiler().version.splitlines()[0])
    except CompilerNotFound as error:
        yield Finding("simulator", str(error), "absent")


def _gpu() -> Finding:
    problem, cupy = cuda_problem(), cupy_or_none()
    if problem is not None or cupy is None:
        return Finding("GPU", f"none: {problem}", "absent")
    runtime = cupy.cuda.runtime
    about = runtime.getDeviceProperties(0)
    driver = runtime.driverGetVersion()
    return Finding(
        "GPU",
        f"{about['name'].decode()}, compute capability {about['major']}.{about['minor']}, "
        f"{about['totalGlobalMem'] / 2**30:.0f} GiB; CuPy {cupy.__version__}, "
        f"driver for CUDA {driver // 1000}.{driver % 1000 // 10}",
    )


def _blas() -> str:
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))  # some load their threads with the first product
    found = [info for info in threadpool_info() if info["user_api"] == "blas"]
    if not found:
        return "a BLAS that threadpoolctl does not know"
    return f"BLAS {found[0]['internal_api']} {found[0]['version'] or ''} with {_counted(found[0]['num_threads'])}"


def _processor() -> str:
    name = platform.processor() or platform.machine()
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        lines = facts.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    has = processor()
    vectors = f"vectors of {has.vector_bytes} bytes" if has.vector_bytes else "no vector instructions that kernels use"
    return f"{name}; {vectors}; bfloat16 {'in hardware' if has.bfloat16 else 'not in hardware'}"


def _threads() -> str:
    import numba

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_counted(numba.config.NUMBA_NUM_THREADS)} on {cores} cores"


def _counted(threads: int) -> str:
    return f"{threads} thread{'' if threads == 1 else 's'}"
