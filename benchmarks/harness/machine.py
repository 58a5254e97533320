"""What the numbers were measured on: the machine and the versions, without names or paths of either."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = ("minitl", "numpy", "numba", "torch", "transformers", "onnxruntime", "onnx")
FEATURES = {"avx2": "avx2", "avx512f": "avx512", "avx512_bf16": "avx512-bf16", "amx_bf16": "amx-bf16"}


def describe(threads: int, rounds: int) -> dict[str, str]:
    """Return the lines at the head of every table."""
    facts = _processor_facts()
    flags = facts.get("flags", "").split()
    features = [f"{label} {'yes' if flag in flags else 'no'}" for flag, label in FEATURES.items()]
    return {
        "processor": f"{facts.get('model name', platform.machine() or 'unknown')}; {os.cpu_count()} processors; "
        f"last-level cache {facts.get('cache size', 'unknown')}",
        "features": ", ".join(features) if flags else "unknown",
        "memory": _memory(),
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{package} {_version(package)}" for package in PACKAGES),
        "minitl's kernels": _kernels(),
        "threads": str(threads),
        "rounds": f"median of {rounds}, interleaved, one process per program",
    }


def has_bfloat16() -> bool:
    """Tell whether this processor multiplies bfloat16 in hardware."""
    return bool({"avx512_bf16", "amx_bf16"} & set(_processor_facts().get("flags", "").split()))


def _processor_facts() -> dict[str, str]:
    """The first processor's lines in /proc/cpuinfo; empty where there is none."""
    try:
        block = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _kernels() -> str:
    """Which of its kernels minitl runs; asked in another process, so that this one stays small."""
    code = 'from minitl.kernels import select; print(select("matmul", "cpu").__name__.rpartition(".")[2])'
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return "unknown"
    return f"{size / 2**30:.0f} GiB"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
