"""Compiled kernels, and how a launch gets to them: inside this process, or in one of its own under the sanitizers."""

from __future__ import annotations

import ctypes
import os
import re
import struct
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitl.kernels.cudasim.arguments import Parameter
from minitl.kernels.cudasim.errors import KernelError
from minitl.kernels.launch import Array

VALUE, ARRAY, NULL = 0, 1, 2  # kinds of arguments in the file of a launch, include/executable.h
FAILED = 3  # exit code of a program whose kernel did something wrong


class Request(ctypes.Structure):
    """``cudasim::Request`` of ``include/launch.h``: how to launch."""

    _fields_ = (
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("thread_order", ctypes.c_uint32),
        ("block_order", ctypes.c_uint32),
        ("seed", ctypes.c_uint64),
        ("shared_bytes", ctypes.c_uint64),
        ("traced_block", ctypes.c_int64),
    )


class Event(ctypes.Structure):
    """``cudasim::Event`` of ``include/trace.h``: an entry of the diary."""

    _fields_ = (
        ("kind", ctypes.c_int32),
        ("thread", ctypes.c_uint32),
        ("mask", ctypes.c_uint32),
        ("line", ctypes.c_int32),
        ("file", ctypes.c_char_p),
        ("label", ctypes.c_char_p),
        ("real", ctypes.c_double),
        ("integer", ctypes.c_int64),
    )


class SharedLibrary:
    """Kernels in a shared library that this process has loaded. Launches from several Python threads take turns."""

    def __init__(self, path: Path, count: int) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.cudasim_describe.restype = ctypes.c_char_p
        self._library.cudasim_error.restype = ctypes.c_char_p
        self._library.cudasim_events.restype = ctypes.POINTER(Event)
        self._turn = threading.Lock()
        texts = [self._library.cudasim_describe(index).decode() for index in range(count)]
        self.parameters = [[Parameter.parse(line) for line in text.splitlines()] for text in texts]

    def launch(self, index: int, request: Request, arguments: Sequence[Any]) -> tuple[str, list[Event]]:
        """Run kernel number ``index``; return an error message, "" for none, and the diary of the traced block."""
        held: list[Any] = []  # what the addresses point to lives until the kernel is done
        addresses = (ctypes.c_void_p * len(arguments))()
        for number, argument in enumerate(arguments):
            if isinstance(argument, np.generic):
                held.append(np.array(argument))
                addresses[number] = held[-1].ctypes.data
            else:
                held.append(ctypes.c_void_p(None if argument is None else argument.ctypes.data))
                addresses[number] = ctypes.addressof(held[-1])
        count = ctypes.c_int64()
        with self._turn:
            failed = self._library.cudasim_launch(index, ctypes.byref(request), addresses)
            message = self._library.cudasim_error().decode(errors="replace") if failed else ""
            events = self._library.cudasim_events(ctypes.byref(count))
            diary = [Event.from_buffer_copy(events[number]) for number in range(count.value)]
        return message, diary


class Program:
    """Kernels in a program of their own, under the address and undefined-behaviour sanitizers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        done = subprocess.run([path, "--describe"], capture_output=True, encoding="utf-8", check=True)
        texts = done.stdout.split("end\n")[:-1]
        self.parameters = [[Parameter.parse(line) for line in text.splitlines()] for text in texts]

    def launch(self, index: int, request: Request, arguments: Sequence[Any]) -> None:
        """Run kernel number ``index`` in a new process, and copy what it has written into the arrays.

        Raises:
            KernelError: the simulator or a sanitizer has found a mistake; the arrays are as they were.
            ValueError: two arrays overlap, but are not the same.
        """
        arrays: list[Array] = []
        words = []
        for argument in arguments:
            if argument is None:
                words.append(struct.pack("=i", NULL))
            elif isinstance(argument, np.generic):
                value = np.array(argument).tobytes()
                words.append(struct.pack("=iQ", VALUE, len(value)) + value)
            else:
                words.append(struct.pack("=iQ", ARRAY, _place(arrays, argument)))
        with tempfile.TemporaryDirectory() as folder:
            launch, result = Path(folder, "launch"), Path(folder, "arrays")
            with launch.open("wb") as file:
                file.write(struct.pack("=i", index) + bytes(request) + struct.pack("=i", len(arrays)))
                for array in arrays:
                    file.write(struct.pack("=Q", array.nbytes) + array.tobytes())
                file.write(struct.pack("=i", len(words)) + b"".join(words))
            options = {
                "ASAN_OPTIONS": "detect_leaks=0:use_sigaltstack=0:detect_stack_use_after_return=0",
                "UBSAN_OPTIONS": "print_stacktrace=1",
            }
            done = subprocess.run(
                [self._path, launch, result],
                env=os.environ | options,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
            )
            if done.returncode == FAILED:
                raise KernelError(done.stderr.strip().rpartition("cudasim: ")[2])
            if done.returncode:
                raise KernelError(summary(done.stderr, done.returncode), done.stderr)
            written = result.read_bytes()
        start = 0
        for array in arrays:
            if array.flags.writeable:
                array.reshape(-1).view(np.uint8)[:] = np.frombuffer(written, np.uint8, array.nbytes, start)
            start += array.nbytes


def _place(arrays: list[Array], array: Array) -> int:
    """Return which of the arrays this one is; append it if it is none of them."""
    for number, other in enumerate(arrays):
        if array.ctypes.data == other.ctypes.data and array.nbytes == other.nbytes:
            return number
        if array.nbytes and other.nbytes and np.may_share_memory(array, other):
            raise ValueError("sanitize=True gives every array memory of its own, and two of these arrays overlap")
    arrays.append(array)
    return len(arrays) - 1


def summary(report: str, code: int) -> str:
    """Return the lines of a sanitizer's report that say what and where, and the kernel's line, without folders."""
    wanted = re.compile(r"runtime error: |SUMMARY: AddressSanitizer: |is located .* (?:of|after|before) |^note: ")
    lines = [line.strip() for line in report.splitlines() if wanted.search(line)]
    lines.sort(key=lambda line: not line.startswith("SUMMARY: "))  # what, then where that lies
    text = (
        "; ".join(line.removeprefix("SUMMARY: ") for line in lines)
        or f"the process of the kernel ended with code {code}: {report.strip()[-500:]}"
    )
    frame = re.search(r"^\s*#\d+ .*/([^/\s]+\.cu:\d+)", report, re.MULTILINE)
    text = re.sub(r"[^\s'(]*/(?=[^\s/]+\.(?:cuh?|h)\b)", "", text)
    return text if frame is None or f"{frame[1]}:" in text or f"{frame[1]} " in text else f"{text}; from {frame[1]}"
