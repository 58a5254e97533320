"""What the tests of the simulator share: the compiled files of ``tests/cudasim/kernels``."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulator import DEVICE, here, there

from minitl.device import module_of
from minitl.kernels.cudasim import BuildError, Module
from minitl.kernels.program import _GpuModule

FILES = Path(__file__).parent / "kernels"

TYPES = ("float", "__half", "__nv_bfloat16")
#: Names of the kernels that are templates; the others are found in the text.
TEMPLATES = {
    "mistakes.cu": [],
    "pieces.cu": [
        *(f"convert<{a}, {b}>" for a in TYPES for b in TYPES if "float" in (a, b)),
        *(f"row_sum_and_maximum<{t}, {n}>" for t in (*TYPES, "double") for n in (32, 96, 1024)),
        *(f"copy_packs<{t}>" for t in (*TYPES, "double", "unsigned char")),
        *(f"load_matrices<{t}>" for t in ("false", "true")),
        *(f"multiply<{t}, {pending}>" for t in TYPES[1:] for pending in (1, 2)),
    ],
}


@functools.cache
def compiled(file: str, *, sanitize: bool = False) -> Module:
    """A file of ``tests/cudasim/kernels`` with all its kernels."""
    return Module(FILES / file, _names(file), sanitize=sanitize)


def _names(file: str) -> list[str]:
    text = (FILES / file).read_text(encoding="utf-8")
    return [*re.findall(r'^extern "C" __global__ void (\w+)\(', text, re.MULTILINE), *TEMPLATES[file]]


class OnGpu:
    """Kernels of a file on a GPU, called as the simulator's are: arrays of the host, written in place."""

    def __init__(self, file: str, names: list[str]) -> None:
        self._module = _GpuModule(module_of("cuda"), FILES / file, names)

    def kernel(self, name: str) -> Callable[..., None]:
        kernel = self._module.kernel(name)

        def call(
            grid: tuple[int, ...],
            block: tuple[int, ...],
            arguments: tuple[Any, ...],
            *,
            order: str = "",
            **options: Any,
        ) -> None:
            moved = there(arguments)
            kernel(grid, block, moved, **options)
            for before, after in zip(arguments, moved, strict=True):
                if isinstance(before, np.ndarray):
                    before[...] = here(after)

        return call


@functools.cache
def on_device(file: str) -> Any:
    """The same for tests that hold on a GPU as well: ``pytest --device cuda`` runs them there."""
    return compiled(file) if DEVICE == "cudasim" else OnGpu(file, _names(file))


def sanitized(file: str) -> Module:
    """The same under the sanitizers; skips where the compiler comes without them."""
    try:
        return compiled(file, sanitize=True)
    except BuildError as error:
        if re.search(r"lib[act]san|lib(?:clang_rt\.)?ubsan|ziglang", str(error)):
            pytest.skip(f"no sanitizers here: {str(error).splitlines()[-1]}")
        raise


def line_of(file: str, text: str) -> int:
    """The line of a file on which the text stands, and only there."""
    lines = [number for number, line in enumerate((FILES / file).read_text().splitlines(), start=1) if text in line]
    assert len(lines) == 1, f"{text!r} stands on lines {lines} of {file}"
    return lines[0]


def line_in(file: str, kernel: str, text: str) -> int:
    """The line of the text's first appearance from the beginning of a kernel on."""
    lines = (FILES / file).read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if f" {kernel}(" in line)
    return next(number for number in range(start, len(lines)) if text in lines[number]) + 1
