"""Kill a process that saves checkpoints, at random moments, and read what it has left. Run by .ci/run.

A child saves one checkpoint after the other and reports each through a pipe once ``save`` has returned. It is ended
with SIGKILL. Then the newest checkpoint must be whole, with the numbers of its step, and be the last one that was
reported or the one after it; a restart must leave nothing half; and the next child goes on in the same folder.

    python tests/training/kill_saves.py --kills 500
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from minitl.training.checkpoint import Checkpoint, CheckpointFolder

KEEP = 2
FILES = {"model.safetensors", "optimizer.safetensors", "best.safetensors", "state.json", "SHA256SUMS"}


def checkpoint(step: int) -> Checkpoint:
    """About 100 kB, every number of which tells its step."""
    weight = np.full(10_000, step, np.float64)
    parts = {"model": {"weight": weight}, "optimizer": {"mean": weight + 0.5}, "best": {"weight": weight[:2500]}}
    return Checkpoint(step, parts, {"note": str(step)})


def child(folder: Path, first: int, report: int) -> None:
    """Save and report until killed."""
    saving = CheckpointFolder(folder, KEEP)
    saving.prepare()
    saving.newest(strict=True)
    step = first
    while True:
        saving.save(checkpoint(step))
        os.write(report, step.to_bytes(4, "little"))
        step += 1


def wrong(folder: Path, last: int) -> str:
    """What is wrong with what a killed child has left, or an empty string; ``last`` was reported, 0 for none."""
    saving = CheckpointFolder(folder, KEEP)
    found, notes = saving.newest(strict=True)
    if notes:
        return f"damaged: {notes}"
    step = 0 if found is None else found.step
    if step not in (last, last + 1):
        return f"the newest is of step {step}, {last} was reported as saved"
    if found is not None:
        for part, arrays in checkpoint(step).arrays.items():
            for name, values in arrays.items():
                if not np.array_equal(found.arrays[part][name], values):
                    return f"{part} {name} of step {step} holds other numbers"
    saving.prepare()
    for path in folder.iterdir():
        if not path.name.startswith("step-") or {one.name for one in path.iterdir()} != FILES:
            return f"{path} was left after a restart"
    return ""


def one_kill(folder: Path, last: int, seconds: float) -> tuple[int, bool]:
    """Let a child save for some time and kill it; the last step that it has reported, and whether it was killed."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        try:
            child(folder, last + 1, writing)
        finally:
            os._exit(1)  # it only comes here by an exception
    os.close(writing)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    with os.fdopen(reading, "rb") as stream:
        reports = stream.read()
    steps = [int.from_bytes(reports[start : start + 4], "little") for start in range(0, len(reports), 4)]
    return max([last, *steps]), os.WIFSIGNALED(status)


def seconds_of_a_save(folder: Path) -> float:
    """How long a save takes here, so that kills come while it lasts."""
    folder.mkdir()
    saving = CheckpointFolder(folder / "checkpoints", KEEP)
    start = time.monotonic()
    for step in range(1, 6):
        saving.save(checkpoint(step))
    return (time.monotonic() - start) / 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=20261127)
    parser.add_argument("--folder", type=Path, help="where to save [default: a temporary folder]")
    options = parser.parse_args()
    generator = random.Random(options.seed)
    work = Path(tempfile.mkdtemp(dir=options.folder, prefix="minitl-kills-"))
    folder = work / "checkpoints"
    last, seen = 0, Counter[str]()
    one_save = seconds_of_a_save(work / "trial")
    start = time.monotonic()
    for number in range(options.kills):
        before = last
        last, was_killed = one_kill(folder, last, generator.uniform(0.0, 0.01 + 4 * one_save))
        left = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        seen["something half written or half removed"] += any(".tmp" in name for name in left)
        try:
            problem = wrong(folder, last) if was_killed else "the child ended by itself"
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        if problem:
            print(f"kill {number} of seed {options.seed} after step {last}: {problem}; see {work}", file=sys.stderr)
            return 1
        newest = CheckpointFolder(folder, KEEP).newest(strict=True)[0]
        seen["saved, but not yet reported"] += newest is not None and newest.step == last + 1
        seen["no new checkpoint"] += last == before
        last = 0 if newest is None else newest.step
    shutil.rmtree(work)
    counts = "; ".join(f"{name}: {count:,}" for name, count in sorted(seen.items()))
    seconds = time.monotonic() - start
    print(f"{options.kills:,} kills in {seconds:.0f} s, {last:,} checkpoints, none lost, none half ({counts})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
