"""What ``minitl doctor`` tries on a machine: do the kernels compile, do all devices train alike, how fast are they."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minitl import optim
from minitl.cli.findings import Finding
from minitl.device import check_device
from minitl.errors import DeviceError
from minitl.kernels import nvrtc
from minitl.kernels.cudasim import CompilerNotFound, Module
from minitl.kernels.launch import bfloat16, cuda_problem, cupy_or_none
from minitl.kernels.program import Program, all_programs
from minitl.kernels.select import select, use_kernels
from minitl.models import BertConfig, BertForTokenClassification, PackedBatch
from minitl.precision import precision
from minitl.random import manual_seed
from minitl.training import train_step

OLDEST_WITH_BFLOAT16 = 80  # compiled for where there is no GPU to ask
STEPS, LENGTHS = 3, (7, 20, 1, 12)
# Three steps of 1e-3, in each of which sums are rounded in another order. A parameter whose gradient is itself only
# rounding may go the other way, by all of its steps: so it is the mean that is judged.
ALLOWED = {"float32": 1e-6, "bfloat16": 3e-4}
SECONDS = 0.4  # of each measurement of speed


def compiled(progress: Callable[[str], None]) -> Iterator[Finding]:
    """Compile every CUDA kernel: for this GPU, or one that is common, and for the simulator.

    Args:
        progress: is told what begins.
    """
    programs = all_programs()
    architecture = _architecture()
    progress(f"compiling for sm_{architecture}")
    yield _tried(f"for sm_{architecture}", programs, lambda program: _by_nvrtc(program, architecture))
    progress("compiling for the simulator")
    yield _tried("for the simulator", programs, _by_the_host)


def _architecture() -> int:
    cupy = cupy_or_none()
    if cuda_problem() is not None or cupy is None:
        return OLDEST_WITH_BFLOAT16
    found = int(cupy.cuda.Device().compute_capability)
    return max(number for number in nvrtc.MULTIPROCESSORS if number <= found)


def _by_nvrtc(program: Program, architecture: int) -> None:
    if program.architecture <= architecture:
        nvrtc.compile_file(program.file, program.instantiations, architecture)


def _by_the_host(program: Program) -> None:
    Module(program.file, program.instantiations)


def _tried(name: str, programs: list[Program], compile_: Callable[[Program], None]) -> Finding:
    """Compile all files, on all cores: compilers let Python's lock go."""
    start, waiting, failures = time.perf_counter(), deque(programs), {}

    def work() -> None:
        while waiting:
            try:
                program = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                compile_(program)
            except Exception as error:
                failures[program.file.name] = error

    threads = [threading.Thread(target=work, daemon=True) for _ in range(os.cpu_count() or 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in failures.values():
        if isinstance(error, CompilerNotFound) or str(error) == nvrtc.HOW_TO_GET_IT:
            return Finding(name, f"not tried: {error}", "absent")
    if failures:
        lines = [f"{file}: {error}" for file, error in sorted(failures.items())]
        return Finding(name, "\n".join([f"{len(failures)} of {len(programs)} files fail:", *lines]), "broken")
    kernels = sum(len(program.instantiations) for program in programs)
    return Finding(name, f"all {kernels} kernels of {len(programs)} files, {time.perf_counter() - start:.0f} s")


def alike(progress: Callable[[str], None]) -> Iterator[Finding]:
    """Train a tiny BERT on every device that is here, beside the reference kernels on the CPU."""
    with use_kernels("reference"):
        wanted = trained("cpu", "float32")
    for device in ("cpu", "cudasim", "cuda"):
        try:
            check_device(device)
        except DeviceError as error:
            yield Finding(device, f"not tried: {error}", "absent")
            continue
        policies = (
            ["float32", "bfloat16"] if device == "cuda" and _architecture() >= OLDEST_WITH_BFLOAT16 else ["float32"]
        )
        for policy in policies:
            progress(f"training on {device} in {policy}")
            yield _compared(device, policy, wanted)


def _compared(device: str, policy: str, wanted: np.ndarray) -> Finding:
    name, start = f"{device}, {policy}", time.perf_counter()
    try:
        found = trained(device, policy)
    except Exception as error:  # whatever it is, the report goes on
        return Finding(name, f"fails: {type(error).__name__}: {error}", "broken")
    apart = float(np.abs(found - wanted).mean())
    seconds = f"{time.perf_counter() - start:.1f} s"
    if not apart <= ALLOWED[policy]:
        text = f"after {STEPS} steps the parameters are {apart:.1e} apart on average, {ALLOWED[policy]:.0e} is allowed"
        return Finding(name, f"{text}; {seconds}", "broken")
    return Finding(name, f"trains like the reference: parameters {apart:.1e} apart on average, {seconds}")


def trained(device: str, policy: str) -> np.ndarray:
    """Return all parameters of a tiny tagger after three steps, with dropout, in one row."""
    manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=64,
        max_position_embeddings=40,
        num_labels=5,
    )
    model = BertForTokenClassification(config).to(device)
    model.train()
    optimizer = optim.AdamW(optim.decay_groups(model, weight_decay=0.01), lr=1e-3)
    tokens, offsets = sum(LENGTHS), np.concatenate(([0], np.cumsum(LENGTHS)))
    positions = np.arange(tokens) - np.repeat(offsets[:-1], LENGTHS)
    with precision(policy, device=device):
        for seed in range(STEPS):
            random = np.random.default_rng(seed)
            ids, labels = random.integers(0, 50, tokens), random.integers(0, 5, tokens)
            train_step(model, [PackedBatch(ids, positions, np.zeros(tokens, np.int64), offsets, labels)], optimizer)
    return np.concatenate([parameter.numpy().reshape(-1) for parameter in model.parameters()])


def speed(progress: Callable[[str], None]) -> Iterator[Finding]:
    """Measure a matrix product and a copy, on the CPU and, where there is one, on the GPU."""
    progress("measuring")
    kernel = select("matmul", "cpu")
    a, b = (np.ones(shape, np.float32) for shape in ((640, 768), (768, 3072)))
    rate = 2 * a.size * b.shape[1] / _seconds(lambda: kernel.matmul(a, b), lambda: None)
    source, target = np.zeros(2**24, np.float32), np.empty(2**24, np.float32)
    copied = 2 * source.nbytes / _seconds(lambda: np.copyto(target, source), lambda: None)
    text = f"{rate / 1e9:.0f} GFLOP/s in float32 products, {copied / 1e9:.0f} GB/s copied by one thread"
    yield Finding("cpu", text)
    cupy = cupy_or_none()
    if cuda_problem() is None and cupy is not None:
        yield _gpu_speed(cupy)


def _gpu_speed(cupy: Any) -> Finding:
    kernel, wait = select("matmul", "cuda"), cupy.cuda.runtime.deviceSynchronize
    short = _architecture() >= OLDEST_WITH_BFLOAT16
    kind = bfloat16() if short else np.dtype(np.float32)
    a, b = cupy.ones((4096, 4096), kind), cupy.ones((4096, 4096), kind)
    try:
        rate = 2 * 4096**3 / _seconds(lambda: kernel.matmul(a, b), wait)
        source = cupy.zeros(2**28, np.float32)
        target = cupy.empty_like(source)
        copied = 2 * source.nbytes / _seconds(lambda: cupy.copyto(target, source), wait)
    except Exception as error:
        return Finding("cuda", f"fails: {type(error).__name__}: {error}", "broken")
    name = "bfloat16" if short else "float32"
    return Finding("cuda", f"{rate / 1e12:.0f} TFLOP/s in {name} products, {copied / 1e12:.2f} TB/s copied")


def _seconds(call: Callable[[], Any], wait: Callable[[], Any]) -> float:
    """Return the seconds of one call, the shortest mean of several series."""
    call()
    wait()
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(4):
            call()
        wait()
        best = min(best, (time.perf_counter() - start) / 4)
    return best
