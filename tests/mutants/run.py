"""Plant every fault of the list, one at a time, in a copy of the code, and see that its tests find it.

    python tests/mutants/run.py                  plants all, compares with docs/mutants.md
    python tests/mutants/run.py NAME [NAME ...]  plants these
    python tests/mutants/run.py --update         plants all, writes docs/mutants.md

A fault is found when a test fails; where the tests cannot run at all (no import, no collection, none selected) the
mutant says nothing and is called invalid. The tests that failed are run again without a fault, and must pass then.
Exit code 0: all found and the page is true. 1: not so. 130: interrupted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import planted
from planted import Mutant

LIMIT = 120  # seconds; a fault may make a loop endless
# The changed text itself is broken, or the module: that is no wrong result that a test has noticed.
BROKEN = ("ImportError", "ModuleNotFoundError", "NameError", "UnboundLocalError", "SyntaxError", "IndentationError")
PLUGINS = [
    "-p",
    "no:cacheprovider",
    "-p",
    "no:randomly",
    "-p",
    "first_failure",
]  # the first failure in the files' order
PYTEST = [sys.executable, "-m", "pytest", "-n", "0", "-x", "-q", *PLUGINS]

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """What became of a selection of tests: all passed, one failed, or they could not be run as they should."""

    result: Literal["passed", "failed", "broken"]
    message: str
    test: str = ""  # the node id of the failed one
    count: int = 0  # how many passed


def judged(exit_code: int, report: dict[str, Any] | None) -> Run:
    """Make a Run of pytest's exit code and of what ``first_failure`` has written, None if it has not."""
    if report is None:
        return Run("broken", f"pytest ended with exit code {exit_code} before it ran a test")
    failure = report["failure"]
    if failure is not None:
        message = f"{failure['error']}: {failure['message']}"
        sound = exit_code == 1 and failure["when"] == "call" and failure["error"] not in BROKEN
        sound = sound and "BuildError" not in message  # of a CUDA kernel, in itself or in what an assertion quotes
        return Run("failed" if sound else "broken", message, failure["test"], report["passed"])
    if exit_code not in (0, 5):
        return Run("broken", f"pytest ended with exit code {exit_code}")
    if not report["passed"]:
        return Run("broken", "no test was selected")
    return Run("passed", "", count=report["passed"])


class Copy:
    """A copy of the code and its tests in ``folder``, laid out as when installed; ``run`` imports nothing else."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        skipped = shutil.ignore_patterns("__pycache__", ".hypothesis")
        for source, target in (("minitl", "minitl"), ("kernels", "minitl/kernels"), ("tests", "tests")):
            shutil.copytree(root / source, folder / target, ignore=skipped)
        shutil.copy(root / "pyproject.toml", folder)
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST_", "PYTHONDONTWRITEBYTECODE"))
        }
        paths = [str(folder), str(planted.FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment["PYTHONPATH"] = os.pathsep.join(paths)
        self.environment |= {"HYPOTHESIS_PROFILE": "ci", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

    def check_imports(self) -> None:
        """Raise a RuntimeError unless Python takes both packages from here, and not those that are installed."""
        code = "import minitl, minitl.kernels; print(minitl.__file__); print(minitl.kernels.__file__)"
        found = subprocess.run(
            [sys.executable, "-c", code], cwd=self.folder.parent, env=self.environment, capture_output=True, text=True
        )
        wanted = [str(self.path_of(f"{package}/__init__.py")) for package in ("minitl", "kernels")]
        if found.stdout.split("\n")[:2] != wanted:
            raise RuntimeError(f"expected {wanted} to be imported, found {found.stdout.split()} {found.stderr}")

    def path_of(self, file: str) -> Path:
        """Return where a file of the repository is in the copy."""
        return self.folder / ("minitl/" + file if file.startswith("kernels/") else file)

    def run(self, tests: Sequence[str], kernels: str) -> Run:
        """Run pytest with these arguments up to the first failure; ``kernels`` is what minitl computes with."""
        report = self.folder / "first_failure.json"
        report.unlink(missing_ok=True)
        command = [*PYTEST, "--first-failure", str(report), *tests]
        environment = self.environment | {"MINITL_KERNELS": kernels}
        try:
            ended = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            return Run("broken", f"not done after {LIMIT} s")
        return judged(ended.returncode, json.loads(report.read_text("utf-8")) if report.exists() else None)

    @contextmanager
    def with_fault(self, mutant: Mutant) -> Iterator[None]:
        """Have the fault in the copy inside the ``with`` block."""
        path = self.path_of(mutant.file)
        source = path.read_bytes()
        try:
            _write(path, mutant.applied(source.decode("utf-8")).encode("utf-8"))
            yield
        finally:
            _write(path, source)


def _write(path: Path, source: bytes) -> None:
    """Write a module and drop its bytecode, which Python trusts if size and second of the change are the same."""
    path.write_bytes(source)
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def in_copies(
    copies: Sequence[Copy], items: Sequence[T], work: Callable[[Copy, T], Run], tell: Callable[[T, Run, float], None]
) -> dict[T, Run]:
    """Do ``work`` for every item, in as many threads as there are copies, each copy used by one at a time."""
    free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)

    def one(item: T) -> tuple[Run, float]:
        copy, start = free.get(), time.monotonic()
        try:
            return work(copy, item), time.monotonic() - start
        finally:
            free.put(copy)

    runs: dict[T, Run] = {}
    with ThreadPoolExecutor(len(copies)) as pool:
        futures = {pool.submit(one, item): item for item in items}
        try:
            for future in as_completed(futures):
                run, seconds = future.result()
                runs[futures[future]] = run
                tell(futures[future], run, seconds)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return runs


VERDICTS = {"failed": "found", "passed": "NOT FOUND", "broken": "INVALID"}


def run_with_faults(copies: Sequence[Copy], mutants: Sequence[Mutant]) -> dict[str, Run]:
    """Plant each fault and run its tests; return the runs by the mutants' names."""
    told = []

    def plant(copy: Copy, mutant: Mutant) -> Run:
        with copy.with_fault(mutant):
            return copy.run(shlex.split(mutant.tests), mutant.kernels)

    def tell(mutant: Mutant, run: Run, seconds: float) -> None:
        told.append(mutant)
        _say(f"{len(told):4}/{len(mutants)} {VERDICTS[run.result]:9} {mutant.name} ({seconds:.1f} s)  {run.test}")
        _say(f"{'':8} {run.message[:200]}")

    runs = in_copies(copies, mutants, plant, tell)
    return {mutant.name: runs[mutant] for mutant in mutants}


def run_without_faults(copies: Sequence[Copy], found_by: Sequence[tuple[str, str]]) -> list[str]:
    """Run the tests that found something as the code is; return those that fail then too, a line each.

    These are all that matter: a test that passes here and failed there has seen the fault and nothing else.

    Args:
        copies: of the code, without a fault.
        found_by: pairs of a test and the kernels it was run with.
    """
    _say(f"{len(found_by)} tests without a fault")
    groups = []
    for kernels in sorted({kernels for _, kernels in found_by}):
        tests = [test for test, some in found_by if some == kernels]
        groups += [(kernels, *tests[start :: len(copies)]) for start in range(min(len(copies), len(tests)))]
    runs = in_copies(copies, groups, lambda copy, group: copy.run(group[1:], group[0]), lambda *ignored: None)
    lines = []
    for (_, *tests), run in runs.items():
        if run.result != "passed":
            lines.append(f"without a fault: {run.message} {run.test}")
        elif run.count != len(tests):
            lines.append(f"without a fault: {run.count} tests of {len(tests)} ran")
    return lines


def differences(mutants: Sequence[Mutant], runs: dict[str, Run], page: str) -> list[str]:
    """Return what is not, or no longer, true on the page, a line each; mutants that were not run are left out."""
    killers = {name: run.test for name, run in runs.items() if run.result == "failed"}
    wanted = planted.table(mutants, killers)
    wanted_rows, rows = planted.listed(wanted), planted.listed(page)
    stale = [f"docs/mutants.md is out of date: {name}" for name in killers if rows.get(name) != wanted_rows[name]]
    if not stale and len(runs) == len(mutants) and page != wanted:
        return ["docs/mutants.md is out of date: its text, or a row too many"]
    return stale


def main(arguments: Sequence[str] | None = None, *, root: Path = planted.ROOT) -> int:
    """Do what the command line says with the project in ``root``; return the exit code."""
    parser = argparse.ArgumentParser(description="Plant faults in a copy of the code and see that the tests find them.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants to plant, all by default")
    parser.add_argument("--update", action="store_true", help="write docs/mutants.md instead of comparing with it")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="how many at a time (default: one a CPU)"
    )
    options = parser.parse_args(arguments)
    mutants = planted.load()
    unknown = set(options.names) - {mutant.name for mutant in mutants}
    if unknown or (options.names and options.update) or options.workers < 1:
        parser.error(
            f"no mutants called {sorted(unknown)}" if unknown else "--update plants all; --workers is at least 1"
        )
    chosen = [mutant for mutant in mutants if not options.names or mutant.name in options.names]
    try:
        wrong = planted.problems(chosen, root) or _plant(mutants, chosen, options.workers, options.update, root)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


def _plant(mutants: Sequence[Mutant], chosen: Sequence[Mutant], workers: int, update: bool, root: Path) -> list[str]:
    """Plant the chosen ones of all mutants, write or compare the page; return what is wrong, a line each."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        where = Path(temporary).resolve()
        copies = [Copy(root, where / str(number)) for number in range(min(workers, len(chosen)))]
        copies[0].check_imports()
        runs = run_with_faults(copies, chosen)
        kernels = {mutant.name: mutant.kernels for mutant in chosen}
        found = list(dict.fromkeys((run.test, kernels[name]) for name, run in runs.items() if run.result == "failed"))
        wrong = run_without_faults(copies, found) if found else []
    if wrong:
        return wrong
    wrong = [
        f"{VERDICTS[run.result]}: {name}: {run.message} {run.test}".rstrip()
        for name, run in runs.items()
        if run.result != "failed"
    ]
    print(f"{len(runs)} faults planted, {len(runs) - len(wrong)} found, in {time.monotonic() - start:.0f} s")
    page = root / planted.TABLE
    if update:
        killers = {name: run.test for name, run in runs.items() if run.result == "failed"}
        page.write_text(planted.table(mutants, killers), encoding="utf-8")
        return wrong
    return wrong + differences(mutants, runs, page.read_text(encoding="utf-8") if page.exists() else "")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the copies are removed
    sys.exit(main())
