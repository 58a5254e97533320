"""docs/cuda_kernels.md has a line for each instantiation of a CUDA kernel, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from minitl.kernels.program import all_programs

PAGE = Path(__file__).parents[2] / "docs" / "cuda_kernels.md"


def test_the_page_lists_every_kernel() -> None:
    names = [name for program in all_programs() for name in program.instantiations]
    listed = re.findall(r"^\| `([^`]*)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == names, "run python .ci/check_cuda.py --update"
