"""TensorBoard reads the event files of a run, also of one that was interrupted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from minitl.training.journal import Journal

pytest.importorskip("tensorboard", reason="needs tensorboard, of the extra [reference]")
pytestmark = pytest.mark.reference

READ = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1]).Reload()
print(json.dumps({tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}))
"""


def test_tensorboard_reads_what_we_wrote(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step in range(1, 200):
        journal.write({"step": step}, {"train/loss": 1 / step, "train/lr": 2.0**-step})
    lengths = journal.flush()
    journal.write({"step": 200}, {"train/loss": 7.0})
    journal.close()
    resumed = Journal(tmp_path)
    resumed.cut(lengths)
    resumed.write({"step": 200}, {"train/loss": 0.25, "dev/f1": 0.5})
    resumed.close()
    # in a process of its own, with warnings of its own
    command = [sys.executable, "-W", "ignore", "-c", READ, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == {"train/loss", "train/lr", "dev/f1"}
    assert found["dev/f1"] == [[200, 0.5]]
    losses = dict(map(tuple, found["train/loss"]))
    assert losses[200] == 0.25
    assert losses[4] == 0.25
    assert len(losses) == 200
