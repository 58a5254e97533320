"""Watch one block of a launch: which threads come to each barrier, and the values that the kernel's author marks.

A kernel marks a value with ``WATCH("running maximum", maximum)``; on a GPU that is nothing.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from minitl.kernels.cudasim.errors import KernelError
from minitl.kernels.cudasim.libraries import Event
from minitl.kernels.cudasim.module import BlockOrder, Kernel, Order, Schedule, changed_schedule

ARRIVED, RELEASED, FINISHED, WATCHED_INTEGER, WATCHED_REAL = range(5)  # EventKind in include/trace.h
WARP = 32
WIDTH = 100  # columns of a printed trace
TOGETHER = "\N{NO-BREAK SPACE}"  # where no line may end


@dataclass
class Barrier:
    """A place where threads wait for one another: a barrier, or a shuffle or vote of a warp.

    Attributes:
        file, line: where.
        operation: its name, for example ``__syncthreads``.
        threads: who came, in the order in which they came.
        complete: all came, so that they went on.
    """

    file: str
    line: int
    operation: str
    threads: list[int] = field(default_factory=list)
    complete: bool = False


@dataclass(frozen=True)
class Watched:
    """A value that a thread had when it passed a WATCH."""

    file: str
    line: int
    name: str
    thread: int
    value: int | float


@dataclass
class Trace:
    """What one block did, in order. ``print(trace)`` makes a page of it.

    Threads are counted through, x fastest: thread (x, y, z) of a block (X, Y, Z) is number ``x + X * (y + Y * z)``.

    Attributes:
        kernel: its name.
        block_index: which block (x, y, z).
        thread_count: how many threads it has.
        schedule: in which order they ran.
        steps: watched values and barriers, a barrier where its last thread came; incomplete ones are at the end.
    """

    kernel: str
    block_index: tuple[int, int, int]
    thread_count: int
    schedule: Schedule
    steps: list[Barrier | Watched]

    @property
    def barriers(self) -> list[Barrier]:
        """Barriers, shuffles and votes, in the order in which they were complete."""
        return [step for step in self.steps if isinstance(step, Barrier)]

    def values(self, name: str) -> dict[int, list[int | float]]:
        """Return for each thread the values it had at ``WATCH(name, ...)``, in order.

        Raises:
            KeyError: nothing of that name was watched.
        """
        watched = [step for step in self.steps if isinstance(step, Watched)]
        found: dict[int, list[int | float]] = {}
        for step in watched:
            if step.name == name:
                found.setdefault(step.thread, []).append(step.value)
        if not found:
            raise KeyError(f"nothing called {name!r} was watched, only {sorted({step.name for step in watched})}")
        return dict(sorted(found.items()))

    def __str__(self) -> str:
        lines = [f"block {self.block_index} of {self.kernel}: {self.thread_count} threads, {self.schedule.order}"]
        rows = self._rows()
        places = max((len(place) for place, _, _ in rows), default=0)
        names = max((len(name) for _, name, _ in rows), default=0)
        for place, name, text in rows:
            start = f"{place:<{places}}  {name:<{names}}  "
            lines += textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=" " * len(start)) or [start]
        return "\n".join(lines).replace(TOGETHER, " ")

    def _rows(self) -> list[tuple[str, str, str]]:
        """Place, name and text of each printed line: one for all threads, from one barrier of the block to the next."""
        rows: list[tuple[str, str, str]] = []
        phase: dict[tuple[str, int, str], list[Barrier | Watched]] = {}

        def close() -> None:
            for (file, line, name), steps in phase.items():
                rows.append((f"{file}:{line}", name, _text(steps, self.thread_count)))
            phase.clear()

        for step in self.steps:
            name = step.operation if isinstance(step, Barrier) else step.name
            if isinstance(step, Barrier) and name.startswith("__syncthreads"):
                close()
                phase[step.file, step.line, name] = [step]
                close()
            else:
                phase.setdefault((step.file, step.line, name), []).append(step)
        close()
        return rows


def _text(steps: Sequence[Barrier | Watched], thread_count: int) -> str:
    """What happened at one place between two barriers of the block."""
    values: dict[int, str] = {}
    texts = []
    for step in steps:
        if isinstance(step, Watched):
            shown = f"{step.value:.6g}" if isinstance(step.value, float) else str(step.value)
            values[step.thread] = f"{values[step.thread]}, {shown}" if step.thread in values else shown
        else:
            who = _ranges(step.threads)
            texts.append(who if step.complete else f"{who} of {thread_count}, then no more")
    if values:
        groups: list[tuple[list[int], str]] = []  # neighbours with the same values
        for thread in sorted(values):
            if groups and groups[-1][1] == values[thread] and groups[-1][0][-1] == thread - 1:
                groups[-1][0].append(thread)
            else:
                groups.append(([thread], values[thread]))
        return "  ".join(f"{_ranges(threads)}: {shown}".replace(" ", TOGETHER) for threads, shown in groups)
    counted = {text: texts.count(text) for text in texts}
    return "; ".join(text if count == 1 else f"{text} ({count} times)" for text, count in counted.items())


def _ranges(threads: Iterable[int]) -> str:
    """Write numbers shortly.

    >>> _ranges([3, 0, 1, 2, 7])
    '0-3 7'
    """
    pieces: list[list[int]] = []
    for thread in sorted(threads):
        if pieces and pieces[-1][1] == thread - 1:
            pieces[-1][1] = thread
        else:
            pieces.append([thread, thread])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in pieces)


def trace(
    kernel: Kernel,
    grid: Sequence[int],
    block: Sequence[int],
    arguments: Sequence[Any],
    *,
    block_index: tuple[int, int, int] = (0, 0, 0),
    shared_memory: int = 0,
    order: Order | None = None,
    block_order: BlockOrder | None = None,
    seed: int | None = None,
) -> Trace:
    """Launch a kernel and return what one of its blocks did.

    Args:
        kernel: of a module without ``sanitize``.
        block_index: which block to watch (x, y, z).
        grid, block, arguments, shared_memory, order, block_order, seed: as in a launch.

    Raises:
        KernelError: as a launch; a note on the error has the trace up to there.
        TypeError, ValueError: as a launch; the grid does not have that block.
    """
    how = changed_schedule(order, block_order, seed)
    message, diary = kernel.run(grid, block, arguments, shared_memory, how, block_index)
    threads = 1
    for length in block:
        threads *= int(length)
    result = Trace(kernel.name, block_index, threads, how, _steps(diary))
    if message:
        error = KernelError(f"{kernel.name}: {message}")
        error.add_note(str(result))
        raise error
    return result


def _steps(diary: Sequence[Event]) -> list[Barrier | Watched]:
    """Put arrivals at the same barrier together."""
    steps: list[Barrier | Watched] = []
    waiting: dict[tuple[int, int], Barrier] = {}  # by warp (-1: the block) and mask
    for event in diary:
        file, label = os.path.basename(event.file.decode()), event.label.decode()
        key = (-1 if event.mask == 0 else event.thread // WARP, event.mask)
        if event.kind == ARRIVED:
            if key not in waiting:
                waiting[key] = Barrier(file, event.line, label)
            waiting[key].threads.append(event.thread)
        elif event.kind == RELEASED:
            barrier = waiting.pop(key)
            barrier.complete = True
            steps.append(barrier)
        elif event.kind != FINISHED:
            value: int | float = event.integer if event.kind == WATCHED_INTEGER else event.real
            steps.append(Watched(file, event.line, label, event.thread, value))
    return [*steps, *waiting.values()]
