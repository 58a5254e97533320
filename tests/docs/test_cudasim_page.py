"""The page about the CUDA simulator: its code runs and prints what the page says."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from test_docs import run_page

from minitl.kernels.cudasim import CompilerNotFound, find_compiler


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        find_compiler()
    except CompilerNotFound as error:
        pytest.skip(str(error))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run_page("docs/cudasim.md")
