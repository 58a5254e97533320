"""Launching CUDA kernels: names of instantiations, numbers of blocks, and constants that stand in two languages."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from simulator import needs_compiler

import minitl.kernels
from minitl.kernels import columns, program
from minitl.kernels.adamw import table
from minitl.kernels.attention import cuda as attention
from minitl.kernels.gelu import cuda as gelu
from minitl.kernels.matmul import cuda as matmul

FOLDER = Path(next(iter(minitl.kernels.__path__)))


def constants(file: str) -> dict[str, int]:
    return {
        name: int(value) for name, value in re.findall(r"constexpr int (\w+) = (\d+);", (FOLDER / file).read_text())
    }


def test_launchers_and_kernels_mean_the_same_numbers() -> None:
    in_columns = constants("columns.cuh")
    assert in_columns == {name: getattr(columns, name) for name in ("COLUMNS", "ROWS_AT_ONCE", "CHUNK_ROWS")}
    assert constants("attention/attention.cu")["WARPS"] == attention.WARPS
    assert constants("matmul/matmul.cu")["TILE"] == matmul.TILE


def test_the_options_of_adamw_have_the_same_columns() -> None:
    text = (FOLDER / "adamw/adamw.cu").read_text()
    listed = re.search(r"enum Option \{(.*?)\}", text, re.DOTALL)
    assert listed is not None
    names = [name.strip() for name in listed[1].replace("\n", " ").split(",") if name.strip()]
    assert names[-1] == "OPTIONS"
    assert [getattr(table, name) for name in names[:-1]] == list(range(len(names) - 1))
    segments = [minitl.kernels.adamw.Segment(0, 3, 0.1, 0.0, 1)]
    options = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "torch_compat": False, "dtype": np.dtype(np.float32)}
    assert table.options_of(segments, **options).shape == (1, len(names) - 1)


def test_names() -> None:
    assert program.per_type("drop", "rows<,128>") == [
        "drop<float>",
        "drop<double>",
        "rows<float,128>",
        "rows<double,128>",
    ]


@pytest.mark.parametrize(("count", "blocks"), [(0, 1), (1, 1), (256, 1), (257, 2), (2**40, program.MOST_BLOCKS)])
def test_blocks(count: int, blocks: int) -> None:
    assert program.blocks_for(count) == blocks


@needs_compiler
def test_a_kernel_that_was_not_instantiated() -> None:
    with pytest.raises(KeyError, match=r"gelu.cu was compiled for gelu_forward<float,false>, .*, not for gelu<float>"):
        gelu.PROGRAM.launch("gelu", np.zeros(1, np.float32), 1, 32)


@needs_compiler
def test_more_elements_than_threads() -> None:
    """The threads of a grid go through the elements in strides."""
    x = np.random.default_rng(0).normal(size=(3, 7))
    y = np.empty_like(x)
    gelu.PROGRAM.launch("gelu_forward_single<,false>", x, 2, 4, x, None, y, np.int64(x.size), np.int32(7))
    np.testing.assert_array_equal(y, gelu.forward(x, None, approximate="none"))
