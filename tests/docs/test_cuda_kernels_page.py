"""docs/cuda_kernels.md has a line for each instantiation of a CUDA kernel, and no other."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path

import minitl.kernels

PAGE = Path(__file__).parents[2] / "docs" / "cuda_kernels.md"


def test_the_page_lists_every_kernel() -> None:
    names = []
    for entry in pkgutil.iter_modules(minitl.kernels.__path__):
        if entry.ispkg and importlib.util.find_spec(f"minitl.kernels.{entry.name}.cuda") is not None:
            names += importlib.import_module(f"minitl.kernels.{entry.name}.cuda").PROGRAM.instantiations
    listed = re.findall(r"^\| `([^`]*)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == names, "run python .ci/check_cuda.py --update"
