"""The parent's side of a benchmark: starts workers, talks to them, and sees what they use while they wait."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class WorkerError(Exception):
    """A worker could not do what it was told; one line that goes into the table."""


class Worker:
    """A child process that waits for calls.

    Args:
        script: file name in ``benchmarks/``.
        threads: for every library in it; it is also kept on that many processors.
        environment: variables on top of this process's.

    Attributes:
        started: ``time.perf_counter()`` just before the process was started.
    """

    def __init__(self, script: str, threads: int, environment: dict[str, str] | None = None) -> None:
        self.script = script
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed in close)
        with _on_processors(threads):
            self.started = time.perf_counter()
            self._process = subprocess.Popen(
                [sys.executable, str(BENCHMARKS / script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                cwd=tempfile.gettempdir(),
                env=child_environment(threads, environment),
            )

    def call(self, method: str, /, **arguments: Any) -> Any:
        """Let the worker run one of its methods and return its result.

        Raises:
            WorkerError: the method raised, or the process has ended.
        """
        with suppress(BrokenPipeError):  # it may have ended, and left an answer that says why
            print(json.dumps({"call": method, "arguments": arguments}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"{self.script} ended with exit code {self._process.wait()} {self._last_words()}".strip())
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply["result"]

    def processor_seconds(self) -> float:
        """Return the processor time of all its threads so far; 0 where there is no /proc."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        """Return what the process wrote to standard error."""
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                stream.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _last_words(self) -> str:
        lines = self.log().strip().splitlines()
        return f"({lines[-1][:150]})" if lines else ""


def child_environment(threads: int, extra: dict[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment with the number of threads set for every library.

    How threads wait is left as shipped: they go to sleep by themselves soon after a call, and the conditions of a run
    (harness/conditions.py) say whether they did.
    """
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **(extra or {})}


@contextmanager
def _on_processors(count: int) -> Iterator[None]:
    """Keep what is started inside the block on the first ``count`` processors, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
