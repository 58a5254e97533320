"""Where machine code is kept, and when it is thrown away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minitl.kernels
from minitl.kernels import compiled

KERNELS = Path(minitl.kernels.__file__).parent


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the kernels whose stamps can be asked for."""
    copy = tmp_path / "kernels"
    shutil.copytree(KERNELS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(compiled, "HERE", copy)
    return copy


def stamp(file: Path) -> str:
    compiled.source_stamp.cache_clear()
    return compiled.source_stamp(file)


@pytest.mark.parametrize("edited", ["gelu/cpu.py", "vector_math.py", "compiled.py", "special.py", "threads.py"])
def test_an_edit_of_a_file_that_a_kernel_uses_makes_a_new_stamp(package: Path, edited: str) -> None:
    before = stamp(package / "gelu" / "cpu.py")
    with (package / edited).open("a") as file:
        file.write("# a line more\n")
    assert stamp(package / "gelu" / "cpu.py") != before


def test_an_edit_elsewhere_does_not(package: Path) -> None:
    before = stamp(package / "gelu" / "cpu.py")
    for other in ("attention/cpu.py", "adamw/cpu.py", "select.py"):
        with (package / other).open("a") as file:
            file.write("# a line more\n")
    assert stamp(package / "gelu" / "cpu.py") == before


def test_a_folder_that_cannot_be_written_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    compiled.cache_folder.cache_clear()
    try:
        assert compiled.cache_folder().name.startswith("minitl-kernels-")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        compiled.cache_folder.cache_clear()
        assert compiled.cache_folder() == tmp_path / "cache" / "minitl" / "kernels"
    finally:
        compiled.cache_folder.cache_clear()


SCRIPT = """
import numpy as np
from minitl.kernels.philox import cpu
print(cpu.words(1000, seed=1, call=2, first=3, xp=np).sum())
"""


def test_a_second_process_finds_the_machine_code(tmp_path: Path) -> None:
    def run() -> tuple[str, str]:
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_DEBUG_CACHE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, encoding="utf-8", check=True
        )
        *messages, result = done.stdout.splitlines()
        return "\n".join(messages), result

    first, second = run(), run()
    assert "data saved" in first[0]
    assert "data saved" not in second[0]
    assert "data loaded" in second[0]
    assert first[1] == second[1]
