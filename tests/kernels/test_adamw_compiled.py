"""AdamW compiled: the reference's bits, whatever is cut and skipped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minitl.kernels.adamw import Segment, cpu, reference
from minitl.kernels.adamw.table import CHUNK

f32 = np.float32


@pytest.mark.parametrize("dtype", [f32, np.float64])
@pytest.mark.parametrize("beta1", [0.9, 0.3])
@pytest.mark.parametrize("torch_compat", [False, True], ids=["ours", "torch"])
def test_it_gives_the_bits_of_the_reference(torch_compat: bool, beta1: float, dtype: Any) -> None:
    """Every operation rounds by itself: a small buffer, one of several chunks, and rows that rest."""
    random = np.random.default_rng(0)
    for size in (0, 1, 7, 1000, 3 * CHUNK + 5):
        buffers = [(random.standard_normal(size) * 10.0 ** random.integers(-9, 3, size)).astype(dtype) for _ in "pgmv"]
        buffers[3] **= 2
        table = [
            Segment(0, size // 3, 1e-3, 0.1, 3),
            Segment(size // 3, size // 2, 5e-5, 0.0, 1000, 0.37),
            Segment(size // 3 + size // 2, size - size // 3 - size // 2, 1e-2, 0.01, 1, 0.5),
        ]
        touched = [None if rows is None else random.random(rows) < 0.5 for rows in (None, size // 2, None)]
        for buffer in buffers[1:]:
            buffer[size // 3 : size // 3 + size // 2][~touched[1]] = 0
        results = []
        for module in (reference, cpu):
            copies = [buffer.copy() for buffer in buffers]
            options = {"beta2": 0.999, "eps": 1e-8, "segments": table, "beta1": beta1, "torch_compat": torch_compat}
            module.update(*copies, **options, touched=touched)
            results.append(copies)
        for one, other in zip(*results, strict=True):
            np.testing.assert_array_equal(one.view(np.uint8), other.view(np.uint8))


@pytest.mark.parametrize("module", [reference, cpu])
def test_the_norm_has_the_same_bits_with_rows_left_out(module: Any) -> None:
    """A table of 97 columns, so that rows, blocks and chunks end in different places."""
    random = np.random.default_rng(0)
    for rows, share in ((3, 0.5), (600, 0.01), (600, 0.9)):
        touched = random.random(rows) < share
        table = (random.standard_normal((rows, 97)) * touched[:, None]).astype(f32).reshape(-1)
        other = random.standard_normal(5).astype(f32)
        wanted = module.global_norm([other, table])
        assert module.global_norm([other, table], touched=[None, touched]) == wanted
        assert touched.any() == (wanted > module.global_norm([other]))
