"""Was the machine quiet? Processor time that went to others while a worker was measured."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.child import Worker

SETTLE = 0.05  # seconds; the threads of the worker that was measured before go to sleep in the meantime


class Conditions:
    """Sums up, over all measurements of a run, what the machine did besides the work that was measured.

    Attributes:
        seconds: wall-clock time measured, times the number of processors.
        waiting: processor time of benchmark workers that should have been waiting.
        foreign: processor time of all other processes, and time the hypervisor took away.
        worst: largest share of foreign time in one measurement of at least a second.
    """

    def __init__(self) -> None:
        self.seconds = self.waiting = self.foreign = self.worst = 0.0

    @contextmanager
    def watch(self, measured: Worker, others: Iterable[Worker]) -> Iterator[None]:
        """Account for one measurement, made inside the block, of one worker, while the others wait."""
        others = [other for other in others if other is not measured]
        time.sleep(SETTLE)
        start = time.perf_counter()
        busy, own = _busy_seconds(), measured.processor_seconds()
        waiting = sum(other.processor_seconds() for other in others)
        yield
        seconds = (time.perf_counter() - start) * (os.cpu_count() or 1)
        waiting = sum(other.processor_seconds() for other in others) - waiting
        own = measured.processor_seconds() - own
        foreign = max(0.0, _busy_seconds() - busy - own - waiting)
        self.seconds += seconds
        self.waiting += waiting
        self.foreign += foreign
        if seconds >= 2:
            self.worst = max(self.worst, foreign / seconds)

    def sentence(self) -> str:
        """Say it in one sentence, for the head of a table."""
        if not self.seconds:
            return "not watched: the processes of this suite start and end one after the other"
        if not _busy_seconds():
            return "not known"
        return (
            f"other processes took {self.foreign / self.seconds:.1%} of the processors' time "
            f"(at worst {self.worst:.0%} of one measurement), waiting workers {self.waiting / self.seconds:.1%}"
        )


def _busy_seconds() -> float:
    """Return the time that all processors have been busy since the start of the system; 0 where there is no /proc."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _, _, interrupt, soft_interrupt, steal = (int(field) for field in fields[:8])
    return (user + nice + system + interrupt + soft_interrupt + steal) / os.sysconf("SC_CLK_TCK")
