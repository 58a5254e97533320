"""docs/cuda_kernels.md has a line for each instantiation of a CUDA kernel, and one for each kernel, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from minitl.kernels.program import all_programs
from minitl.kernels.traffic import TRAFFIC, bytes_moved

PAGE = Path(__file__).parents[2] / "docs" / "cuda_kernels.md"


def test_the_page_lists_every_kernel() -> None:
    names = [name for program in all_programs() for name in program.instantiations]
    kernels = {name.partition("<")[0] for name in names}
    assert kernels == set(TRAFFIC), "kernels/traffic.py has a line for each kernel"
    listed = re.findall(r"^\| `([^`]*)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == [*names, *TRAFFIC], "run python .ci/check_cuda.py --update"


def test_bytes_are_counted() -> None:
    """By hand: x and residual, weight and bias; y and total, mean and rstd."""
    rows, columns = 4096, 768
    wanted = 4 * rows * columns * 2 + 2 * columns * 4 + 2 * rows * 4
    assert bytes_moved("layer_norm_forward<__nv_bfloat16,3>") == wanted
    assert bytes_moved("cross_entropy_rows<float>") == rows * 9 * 4 + rows * 8 + 2 * rows * 4
