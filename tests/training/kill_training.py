"""Kill or interrupt ``minitl train`` at random moments, resume it until it ends, and compare. Run by .ci/run.

Every resume must go on from the newest checkpoint that can be there: the last one that was due, or the one before it if
the kill came while that was being saved. A run that was interrupted by Ctrl-C or SIGTERM loses no step at all. In the
end the model, the log without its times, the scores and the predictions must be those of a run that nobody disturbed.

    python tests/training/kill_training.py --kills 20 --signals 10
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from cli_tools import COMMAND  # noqa: E402
from tiny import write_tiny_data, write_tiny_model  # noqa: E402

from minitl.errors import CheckpointError  # noqa: E402
from minitl.text import read_folder  # noqa: E402
from minitl.training.checkpoint import CheckpointFolder  # noqa: E402

EVERY = 5  # steps from checkpoint to checkpoint
TRAIN = ("train", "--data", "data", "--model", "model", "--lr", "5e-3", "--epochs", "40", "--patience", "1000")
OPTIONS = (*TRAIN, "--checkpoint-every", str(EVERY), "--evaluate-every", "40")


class Wrong(Exception):
    """Something was lost."""


@dataclass
class Campaign:
    """Runs that are disturbed, one after the other.

    Args:
        work: folder with data and model.
        generator: of moments.
    """

    work: Path
    generator: random.Random
    seconds: float = 0.0
    seen: Counter[str] = field(default_factory=Counter)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*COMMAND, *words], cwd=self.work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def undisturbed(self) -> dict[str, object]:
        """Train once in peace, and time it."""
        self._run(*OPTIONS, "--output", "warm")  # kernels may have to be compiled
        start = time.monotonic()
        self._run(*OPTIONS, "--output", "whole")
        self.seconds = time.monotonic() - start
        return left_by(self.work / "whole")

    def _run(self, *words: str) -> None:
        process = self.start(*words)
        _, errors = process.communicate()
        if process.returncode:
            raise Wrong(f"{' '.join(words)} ended with {process.returncode}: {errors.decode()}")

    def disturbed(self, name: str, numbers: list[int]) -> dict[str, object]:
        """Train, sending up to four of the signals to it and to its resumed self; those that came are removed."""
        folder = self.work / name
        words: tuple[str, ...] = (*OPTIONS, "--output", name)
        before = disturbances = 0
        while True:
            stale = logged_steps(folder)
            process = self.start(*words)
            number = numbers[-1] if numbers and disturbances < 4 else 0
            if number:
                try:
                    process.wait(self.generator.uniform(0, self.seconds))
                except subprocess.TimeoutExpired:
                    process.send_signal(number)
            _, raw = process.communicate(timeout=120)
            errors = raw.decode()
            self._check_start(errors, before)
            if process.returncode == 0:
                self.seen["ended before the signal came"] += bool(number)
                return left_by(folder)
            numbers.pop()
            disturbances += 1
            before = self._check_end(folder, process.returncode, number, errors, before, stale)
            words = ("train", "--resume", name, "--strict-resume") if (folder / "run.json").exists() else words

    def _check_start(self, errors: str, before: int) -> None:
        goes_on = re.search(r"goes on after step (\d+) of", errors)
        if goes_on and int(goes_on[1]) != before:
            raise Wrong(f"it went on after step {goes_on[1]}, but the newest checkpoint was of step {before}")

    def _check_end(self, folder: Path, code: int, number: int, errors: str, before: int, stale: int) -> int:
        """Check what a disturbed run has left; returns the step of its newest checkpoint, 0 if there is none.

        ``before`` and ``stale`` are the newest checkpoint and the last step in the log when it began.
        """
        # Python itself ends otherwise while it starts and reads modules, before a line of the command has run
        begun = re.search(r'cli.main\.py", line \d+, in main', errors)
        starting = number == signal.SIGINT and "KeyboardInterrupt" in errors and not begun
        if not starting and (code not in (-number, 128 + number) or "Traceback" in errors):
            raise Wrong(f"it ended with {code} after signal {number}: {errors}")
        checkpoints = folder / "checkpoints"
        found = CheckpointFolder(checkpoints).newest(strict=True)[0] if checkpoints.is_dir() else None
        newest = 0 if found is None else found.step
        logged = logged_steps(folder)
        due = logged - logged % EVERY
        if newest < max(before, due - EVERY):
            raise Wrong(
                f"the newest checkpoint is of step {newest}, that of {max(before, due - EVERY)} was there before"
            )
        saved = re.search(r"after step (\d+) of \d+; it is saved", errors)
        if saved and not newest == int(saved[1]) == logged:
            raise Wrong(f"step {saved[1]} was said to be saved, the newest is {newest}, the log has {logged}")
        if number != signal.SIGKILL and logged not in (newest, stale):
            raise Wrong(f"{logged} steps were done, but the newest checkpoint is of step {newest}: {errors}")
        moment = "before step 1" if logged == 0 else "later"
        self.seen[f"{signal.Signals(number).name} {moment}"] += 1
        if any(".tmp" in path.name for path in (checkpoints.iterdir() if checkpoints.is_dir() else [])):
            self.seen["with something half written or half removed"] += 1
        return newest


def logged_steps(folder: Path) -> int:
    """The last step in a log, the last line of which may be half."""
    log = folder / "log.jsonl"
    lines = log.read_bytes().split(b"\n")[:-1] if log.is_file() else []
    return max((json.loads(line)["step"] for line in lines), default=0)


def left_by(folder: Path) -> dict[str, object]:
    """What a run leaves, without times."""
    log = [{**json.loads(line), "seconds": 0} for line in (folder / "log.jsonl").read_text().splitlines()]
    files = ("model.safetensors", "metrics.json", "predictions.conll", "config.json")
    strays = [path.name for path in [*folder.iterdir(), *(folder / "checkpoints").iterdir()] if ".tmp" in path.name]
    return {"log": log, "strays": strays, **{name: (folder / name).read_bytes() for name in files}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signals", type=int, default=10)
    parser.add_argument("--seed", type=int, default=20261127)
    options = parser.parse_args()
    generator = random.Random(options.seed)
    work = Path(tempfile.mkdtemp(prefix="minitl-kills-"))
    labels = read_folder(write_tiny_data(work / "data", 30)).labels.id2label
    write_tiny_model(work / "model", id2label=labels)
    campaign = Campaign(work, generator)
    numbers: list[int] = [signal.SIGKILL] * options.kills
    numbers += [generator.choice([signal.SIGINT, signal.SIGTERM]) for _ in range(options.signals)]
    generator.shuffle(numbers)
    start, runs = time.monotonic(), 0
    try:
        expected = campaign.undisturbed()
        while numbers:
            name = f"run-{runs}"
            found = campaign.disturbed(name, numbers)
            different = [key for key in expected if found[key] != expected[key]]
            if different:
                raise Wrong(f"{name} was disturbed and resumed, and now has other contents in {', '.join(different)}")
            shutil.rmtree(work / name)
            runs += 1
    except (Wrong, CheckpointError) as error:
        print(f"seed {options.seed}, run {runs}, after {dict(campaign.seen)}: {error}; see {work}", file=sys.stderr)
        return 1
    shutil.rmtree(work)
    counts = "; ".join(f"{name}: {count}" for name, count in sorted(campaign.seen.items()))
    print(f"{runs} runs in {time.monotonic() - start:.0f} s, all ended with the same bytes ({counts})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
