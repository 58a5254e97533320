"""``minitl doctor`` on machines that have everything, lack things, or are broken."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minitl.cli import doctor, findings, main, self_test
from minitl.cli.findings import Finding
from minitl.errors import MinitlError
from minitl.kernels import launch, nvrtc
from minitl.kernels.cudasim import BuildError, CompilerNotFound

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line; return its exit code, standard output and standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        code = 0
        try:
            main.main(words)
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests and measurements of the doctor in no time."""
    for name in ("compiled", "alike", "speed"):
        monkeypatch.setattr(self_test, name, lambda progress, name=name: iter([Finding(name, "fine")]))


def test_what_is_printed(run: Run, instant: None) -> None:
    code, out, err = run("doctor")
    assert code == 0
    assert err == ""
    assert [line for line in out.splitlines() if line and not line.startswith("  ")] == [
        *("Here is", "For CUDA kernels", "Kernels compile", "Devices agree", "Speed", "What is here works."),
    ]
    for name in ("minitl", "Python", "NumPy", "processor", "kernels on the CPU", "GPU", "NVRTC", "simulator"):
        assert re.search(rf"^  (ok|--) {name} +\S", out, re.MULTILINE), name
    assert "\033" not in out, "no colours in a pipe"


def test_quick_computes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compiled", "alike", "speed"):
        monkeypatch.setattr(self_test, name, lambda progress: pytest.fail("it computes"))
    code, out, _ = run("doctor", "--quick")
    assert code == 0
    assert "Devices agree" not in out


def test_json(run: Run, instant: None) -> None:
    code, out, err = run("doctor", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert list(report) == ["Here is", "For CUDA kernels", "Kernels compile", "Devices agree", "Speed"]
    assert report["Speed"] == [{"name": "speed", "text": "fine", "state": "ok"}]


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_what_is_broken_is_named_and_fails(
    run: Run, instant: None, monkeypatch: pytest.MonkeyPatch, how: tuple[str, ...]
) -> None:
    broken = Finding("cuda, float32", "fails: CublasError: no\nlibrary", "broken")
    monkeypatch.setattr(self_test, "alike", lambda progress: iter([broken]))
    code, out, _ = run("doctor", *how)
    assert code == 1
    if not how:
        assert "  !! cuda, float32       fails: CublasError: no\n                         library\n" in out
        assert out.endswith("Broken: cuda, float32.\n")


def test_without_a_gpu(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "cupy_or_none", lambda: None)
    monkeypatch.setattr(findings, "cupy_or_none", lambda: None)
    code, out, _ = run("doctor", "--quick")
    assert code == 0, "what is not installed is no fault"
    assert (
        '-- GPU                 none: CuPy, which holds arrays on a GPU, is not installed: pip install "minitl' in out
    )


def test_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"name": b"NVIDIA H100", "major": 9, "minor": 0, "totalGlobalMem": 80 * 2**30}
    runtime = SimpleNamespace(getDeviceProperties=lambda number: about, driverGetVersion=lambda: 13020)
    device = SimpleNamespace(compute_capability="90")
    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime, Device=lambda: device), __version__="14.2.0")
    for module in (findings, self_test):
        monkeypatch.setattr(module, "cupy_or_none", lambda: cupy)
        monkeypatch.setattr(module, "cuda_problem", lambda: None)
    assert findings._gpu().text == ("NVIDIA H100, compute capability 9.0, 80 GiB; CuPy 14.2.0, driver for CUDA 13.2")
    assert self_test._architecture() == 90
    device.compute_capability = "103"  # newer than any that we know
    assert self_test._architecture() == 100


def test_without_compilers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler() -> None:
        raise CompilerNotFound("there is no C++ compiler")

    def no_nvrtc() -> None:
        raise nvrtc.NvrtcError(nvrtc.HOW_TO_GET_IT)

    monkeypatch.setattr(findings, "find_compiler", no_compiler)
    monkeypatch.setattr(nvrtc, "check", no_nvrtc)
    code, out, _ = run("doctor", "--quick")
    assert code == 0
    assert "-- simulator           there is no C++ compiler" in out
    assert "-- NVRTC               NVRTC is not installed" in out


def test_kernels_that_do_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(program: Any, architecture: int = 0) -> None:
        if program.file.name == "gelu.cu":
            raise nvrtc.NvrtcError("gelu.cu for sm_80: error")
        if program.file.name == "adamw.cu":
            raise BuildError("adamw.cu(3): error")

    monkeypatch.setattr(self_test, "_by_nvrtc", fails)
    monkeypatch.setattr(self_test, "_by_the_host", lambda program: None)
    for_gpu, for_host = self_test.compiled(lambda what: None)
    assert for_gpu.state == "broken"
    assert re.match(r"2 of \d+ files fail:\nadamw.cu: adamw.cu\(3\): error\ngelu.cu: gelu.cu for sm_80", for_gpu.text)
    assert for_host.state == "ok"
    assert re.match(r"all \d+ kernels of \d+ files", for_host.text)


@pytest.mark.parametrize(
    "error", [CompilerNotFound("no compiler"), nvrtc.NvrtcError(nvrtc.HOW_TO_GET_IT)], ids=["host", "NVRTC"]
)
def test_compilers_that_are_not_there_are_no_fault(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def missing(program: Any, architecture: int = 0) -> None:
        raise error

    monkeypatch.setattr(self_test, "_by_nvrtc", missing)
    monkeypatch.setattr(self_test, "_by_the_host", missing)
    for finding in self_test.compiled(lambda what: None):
        assert finding == Finding(finding.name, f"not tried: {error}", "absent")


def test_devices_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {device.name: device for device in self_test.alike(lambda what: None)}
    assert found["cpu, float32"].state == "ok"
    wanted = self_test.trained("cpu", "float32")
    moved = wanted + 1e-5
    monkeypatch.setattr(self_test, "trained", lambda device, policy: moved)
    finding = self_test._compared("cpu", "float32", wanted)
    assert finding.state == "broken"
    assert "the parameters are 1.0e-05 apart on average, 1e-06 is allowed" in finding.text
    monkeypatch.setattr(self_test, "trained", lambda device, policy: wanted * np.nan)
    assert self_test._compared("cpu", "float32", wanted).state == "broken"


def test_a_device_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(device: str, policy: str) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(self_test, "trained", fails)
    finding = self_test._compared("cuda", "bfloat16", np.zeros(3))
    assert finding == Finding("cuda, bfloat16", "fails: RuntimeError: out of memory", "broken")


def test_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "SECONDS", 0.001)
    finding = next(self_test.speed(lambda what: None))
    assert re.fullmatch(r"\d+ GFLOP/s in float32 products, \d+ GB/s copied by one thread", finding.text)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--version"], 0, "minitl, version"),
        (["--help"], 0, "doctor"),
        (["doctor", "--help"], 0, "minitl doctor --json > machine.json"),
        (["nurse"], 2, "No such command 'nurse'"),
        (["doctor", "--fast"], 2, "No such option"),
        ([], 2, "Usage: minitl"),
    ],
    ids=str,
)
def test_usage(run: Run, words: list[str], code: int, text: str) -> None:
    found, out, err = run(*words)
    assert found == code
    assert text in (err if code else out)
    assert (out if code else err) == "", "data on standard output, complaints on standard error"


def test_errors_of_a_user_have_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> Any:
        raise MinitlError("the file is not there")

    monkeypatch.setattr(doctor, "sections", fails)
    assert run("doctor") == (1, "", "minitl: the file is not there\n")
    code, out, err = run("--debug", "doctor")
    assert (code, out) == (1, "")
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith("MinitlError: the file is not there\n")


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "sections", stop)
    monkeypatch.setattr(main, "_leave", sys.exit)
    assert run("doctor") == (130, "", "\ninterrupted\n")


def test_the_program_by_itself(tmp_path: Path) -> None:
    """In a process of its own, its output in a pipe."""
    code = "from minitl.cli.main import main; main(['doctor', '--quick'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.startswith("Here is\n  ok minitl ")
    assert done.stderr == ""


def test_interrupted_while_a_compiler_works(tmp_path: Path) -> None:
    """The process is gone at once, whatever its threads are doing."""
    code = """
import signal, os, threading, time
from minitl.cli import doctor, main, self_test
def compile_(program, architecture):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
self_test._by_nvrtc = compile_
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs do not have
main.main(["doctor"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (130, "\ninterrupted\n")
