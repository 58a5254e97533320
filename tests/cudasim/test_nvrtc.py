"""NVRTC, where it is installed: planted mistakes are found, and what a kernel needs is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from minitl.kernels import nvrtc
from minitl.kernels.gelu import cuda as gelu


def _reason() -> str:
    try:
        nvrtc._library()
    except nvrtc.NvrtcError as error:
        return str(error)
    return ""


needs_nvrtc = pytest.mark.skipif(bool(_reason()), reason=_reason())

# 120 sums at once, for which a thread of so large a block has 64 registers
SPILLS = """
__global__ void __launch_bounds__(1024) too_many(const float* x, float* y) {
    float sums[120] = {};
    for (int i = 0; i < 1000; ++i)
        for (int j = 0; j < 120; ++j) sums[j] += x[i] * sums[(j + 7) % 120] + x[i + j];
    for (int j = 0; j < 120; ++j) y[j * 1024 + threadIdx.x] = sums[j];
}
"""
SHARES = """
template <class T> __global__ void turn(T* x) {
    __shared__ T part[128];
    part[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = part[127 - threadIdx.x];
}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "planted.cu"
    path.write_text(text)
    return path


@needs_nvrtc
def test_a_spill_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(nvrtc.NvrtcError, match=r"planted.cu for sm_80:\n\S*too_many\S* spills \d+ bytes of registers"):
        nvrtc.compile_file(written(tmp_path, SPILLS), ["too_many"], 80)


@needs_nvrtc
def test_a_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, SHARES.replace("part[127", "parts[127"))
    with pytest.raises(nvrtc.NvrtcError, match=r'planted.cu\(6\): error: identifier "parts" is undefined'):
        nvrtc.compile_file(path, ["turn<float>"], 90)


@needs_nvrtc
def test_cards(tmp_path: Path) -> None:
    names = ["turn<float>", "turn<double>"]
    cards = nvrtc.compile_file(written(tmp_path, SHARES), names, 90)
    assert [card.name for card in cards] == names
    assert [card.shared_bytes for card in cards] == [512, 1024]
    assert [card.threads for card in cards] == [1024, 1024], "nothing said: any block"
    assert all(0 < card.registers < 64 for card in cards)


@needs_nvrtc
def test_a_program_of_ours() -> None:
    program = gelu.PROGRAM
    cards = nvrtc.compile_file(program.file, program.instantiations, 75)
    assert [card.name for card in cards] == program.instantiations
    assert {card.threads for card in cards} == {256}


@pytest.mark.parametrize(
    ("card", "architecture", "warps"),
    [
        (("registers decide", 256, 65, 0), 90, 24),  # 72 each, in portions: 18,432 a block, three blocks
        (("shared memory decides", 128, 16, 48 * 1024), 80, 12),  # three blocks of 49 KiB in 164
        (("blocks decide", 32, 16, 0), 86, 16),
        (("warps decide", 1024, 32, 0), 120, 32),  # the second block would need 16 more than there are
        (("it fits exactly", 512, 32, 0), 75, 32),
    ],
    ids=str,
)
def test_resident_warps(card: tuple[str, int, int, int], architecture: int, warps: int) -> None:
    assert nvrtc.resident_warps(nvrtc.Card(*card), architecture) == warps


def test_without_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nvrtc.importlib.util, "find_spec", lambda name: None)
    nvrtc._library.cache_clear()
    try:
        with pytest.raises(nvrtc.NvrtcError, match=r'NVRTC is not installed: pip install "minitl\[nvrtc\]"'):
            nvrtc.compile_file(written(tmp_path, SHARES), ["turn<float>"], 90)
    finally:
        nvrtc._library.cache_clear()
