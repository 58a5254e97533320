"""Calls of the command line, in a process of their own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from minitl.cli.main import main

COMMAND = (sys.executable, "-c", "from minitl.cli.main import main; main()")


@dataclass(frozen=True)
class Call:
    """What a call left: exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


def call(*arguments: str | Path, folder: Path, stdin: bytes | None = None, **environment: str) -> Call:
    """Run ``minitl`` and wait for it; a traceback is never to be seen."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=folder,
        input=stdin if stdin is not None else b"",
        capture_output=True,
        env={**os.environ, "NO_COLOR": "1", **environment},
        check=False,
        timeout=120,
    )
    result = Call(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in result.err, result.err
    return result


def call_here(*arguments: str | Path, folder: Path, stdin: bytes = b"") -> Call:
    """Run ``minitl`` in this process, which is faster, and cannot be interrupted."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="", write_through=True) for _ in range(2))
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")),
        mock.patch.dict(os.environ, {"NO_COLOR": "1"}),
    ):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return Call(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))


def run(*words: str | Path) -> tuple[int, str, str]:
    """Run ``minitl`` in this process and this folder; return exit code, standard output and standard error."""
    done = call_here(*words, folder=Path())
    return done.code, done.out, done.err
