"""From the text of a kernel to a library: the compiler, the cache on disk, included files, error messages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cudasim_files import FILES
from simulator import needs_compiler

from minitl.kernels import cudasim
from minitl.kernels.cudasim import compiler
from minitl.kernels.cudasim.source import translation_unit

DOUBLE = """\
template <class T> __global__ void twice(T* x) { x[threadIdx.x] += x[threadIdx.x]; }
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("MINITL_CUDASIM_CACHE", str(folder))
    return folder


@pytest.fixture
def kernel_file(tmp_path: Path) -> Path:
    path = tmp_path / "twice.cu"
    path.write_text(DOUBLE)
    return path


# ---- the compiler ----------------------------------------------------------------------------------------------------


def make_program(folder: Path, name: str, version: str = "a compiler") -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(os.name != "posix", reason="stands in for compilers with shell scripts")
def test_the_compiler_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(compiler, "_asked", compiler._asked.__wrapped__)  # nothing is remembered
    with pytest.raises(cudasim.CompilerNotFound) as error:
        cudasim.find_compiler()
    assert 'pip install "minitl[cudasim]"' in str(error.value)
    assert "CXX" in str(error.value)
    for name in ("c++", "clang++", "g++"):  # each is preferred to those before
        make_program(tmp_path, name, name)
        assert compiler.find_compiler() == compiler.Compiler((name,), f"{name}\n")
    other = make_program(tmp_path, "other")
    monkeypatch.setenv("CXX", f"{other} -m64")
    assert cudasim.find_compiler().command == (str(other), "-m64")


def test_the_package_ziglang_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: name == "ziglang")
    monkeypatch.setattr(compiler, "_asked", lambda command: compiler.Compiler(command, "clang"))
    found = cudasim.find_compiler()
    assert found.command == (sys.executable, "-m", "ziglang", "c++")
    with pytest.raises(cudasim.BuildError, match=r"^sanitize=True needs g\+\+ or clang\+\+: the package ziglang comes"):
        compiler.build("", "none", executable=True)


def test_a_compiler_that_is_named_but_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O3")
    message = "the environment variable CXX names 'no-such-compiler -O3', which is not a program here"
    with pytest.raises(cudasim.CompilerNotFound, match=f"^{re.escape(message)}$"):
        cudasim.Module(FILES / "mistakes.cu", ["reverse"])


# ---- the cache -------------------------------------------------------------------------------------------------------


@needs_compiler
def test_a_second_build_is_found_and_an_edit_is_not(
    cache: Path, kernel_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = cudasim.Module(kernel_file, ["twice<float>"])
    x = np.arange(4, dtype=np.float32)
    module.kernel("twice<float>")((1,), (4,), (x,))
    np.testing.assert_array_equal(x, [0, 2, 4, 6])
    (made,) = cache.iterdir()
    assert re.fullmatch(r"twice-[0-9a-f]{24}\.so", made.name)
    stamp = made.stat().st_mtime_ns
    with monkeypatch.context() as patched:
        patched.setattr(compiler.subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
        cudasim.Module(kernel_file, ["twice<float>"])
    assert made.stat().st_mtime_ns == stamp
    kernel_file.write_text(DOUBLE.replace("+=", "*="))
    module = cudasim.Module(kernel_file, ["twice<float>"])
    module.kernel("twice<float>")((1,), (4,), (x,))
    np.testing.assert_array_equal(x, [0, 4, 16, 36])
    assert len(list(cache.iterdir())) == 2


TWO = """
import sys
import numpy as np
from minitl.kernels import cudasim
print("ready", flush=True)
sys.stdin.readline()
x = np.ones(2, np.float32)
cudasim.Module(sys.argv[1], ["twice<float>"]).kernel("twice<float>")((1,), (2,), (x,))
print(x)
"""


@needs_compiler
def test_two_processes_build_the_same_at_once(cache: Path, kernel_file: Path) -> None:
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen([sys.executable, "-c", TWO, str(kernel_file)], stdin=pipe, stdout=pipe, encoding="utf-8")
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate()[0] for process in processes]
    assert outputs == ["[2. 2.]\n"] * 2
    assert [process.returncode for process in processes] == [0, 0]
    assert len(list(cache.iterdir())) == 1, "something temporary was left behind"


def test_the_folder_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINITL_CUDASIM_CACHE", str(tmp_path / "named"))
    assert compiler.cache_folder() == tmp_path / "named"
    monkeypatch.delenv("MINITL_CUDASIM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert compiler.cache_folder() == tmp_path / "home" / "minitl" / "cudasim"
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(compiler.tempfile, "tempdir", str(tmp_path))
    folder = compiler.cache_folder()
    assert folder.parent == tmp_path
    assert folder.name.startswith("minitl-cudasim-")
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("MINITL_CUDASIM_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(OSError, match="file"):
        compiler.cache_folder()  # what was asked for is not replaced in silence


# ---- the text --------------------------------------------------------------------------------------------------------


def test_flatten(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    (tmp_path / "shared.cuh").write_text("#pragma once\nint shared;\n")
    (below / "own.cuh").write_text('#pragma once\n#include "shared.cuh"\nint own;\n')
    (below / "kernel.cu").write_text(
        '// first\n#include "own.cuh"\n#include "shared.cuh"\n#include <cuda_fp16.h>\nint last;\n'
    )
    flat = cudasim.flatten(below / "kernel.cu")
    assert flat == "\n".join(
        [
            f'#line 1 "{below}/kernel.cu"',
            "// first",
            f'#line 1 "{below}/own.cuh"',
            "",
            f'#line 1 "{tmp_path}/shared.cuh"',
            "",
            "int shared;",
            f'#line 3 "{below}/own.cuh"',
            "int own;",
            f'#line 3 "{below}/kernel.cu"',
            f'#line 4 "{below}/kernel.cu"',
            "#include <cuda_fp16.h>",
            "int last;",
            "",
        ]
    )


def test_files_anywhere_may_include_common_cuh(tmp_path: Path) -> None:
    (tmp_path / "mine.cu").write_text('#include "ptx.cuh"\n')
    flat = cudasim.flatten(tmp_path / "mine.cu")
    assert flat.count("philox_block(uint64 seed") == 1
    assert flat.count("void mma_m16n8k16(") > 1
    assert "#pragma once" not in flat
    assert '#include "' not in flat


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "mine.cu").write_text('#include "nowhere.cuh"\n')
    with pytest.raises(FileNotFoundError, match=r'mine\.cu includes "nowhere\.cuh", which is neither beside it nor'):
        cudasim.flatten(tmp_path / "mine.cu")


def test_an_edit_of_an_included_file_is_an_edit(tmp_path: Path) -> None:
    (tmp_path / "part.cuh").write_text("int one;\n")
    (tmp_path / "mine.cu").write_text('#include "part.cuh"\n')
    before = translation_unit(tmp_path / "mine.cu", [])
    (tmp_path / "part.cuh").write_text("int two;\n")
    assert translation_unit(tmp_path / "mine.cu", []) != before


# ---- mistakes --------------------------------------------------------------------------------------------------------


@needs_compiler
def test_an_error_of_the_compiler_names_file_and_line(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "wrong.cu"
    path.write_text('#include "common.cuh"\n\nextern "C" __global__ void wrong(float* x) {\n    x[0] = y[0];\n}\n')
    with pytest.raises(cudasim.BuildError) as error:
        cudasim.Module(path, ["wrong"])
    assert f"{path}:4:" in str(error.value)
    assert " cannot compile wrong:\n" in str(error.value)
    assert not list(cache.iterdir())


@needs_compiler
def test_half_arithmetic_does_not_compile(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "product.cu"
    path.write_text('#include "common.cuh"\nextern "C" __global__ void product(__half* x) { x[0] = x[0] * x[0]; }\n')
    with pytest.raises(cudasim.BuildError, match=r"product\.cu:2:"):
        cudasim.Module(path, ["product"])


@needs_compiler
def test_an_instantiation_that_does_not_exist(cache: Path, kernel_file: Path) -> None:
    with pytest.raises(cudasim.BuildError, match=r"instantiation thrice<float>:1:"):
        cudasim.Module(kernel_file, ["thrice<float>"])
    module = cudasim.Module(kernel_file, ["twice<float>", "twice<int>"])
    with pytest.raises(KeyError, match=r"twice\.cu was compiled for twice<float>, twice<int>, not for twice<double>"):
        module.kernel("twice<double>")


def test_no_instantiation(kernel_file: Path) -> None:
    with pytest.raises(ValueError, match=r"^twice\.cu: name at least one instantiation$"):
        cudasim.Module(kernel_file, [])


@needs_compiler
def test_debug_keeps_lines(cache: Path, kernel_file: Path) -> None:
    """The debugger's tables name the file; the fast library has none."""
    for debug in (False, True):
        cudasim.Module(kernel_file, ["twice<float>"], debug=debug)
        made = max(cache.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        if sys.platform == "linux":  # macOS leaves the tables beside the library
            assert (b".debug_line" in made.read_bytes()) == debug
    assert len(list(cache.iterdir())) == 2
    shutil.rmtree(cache)
