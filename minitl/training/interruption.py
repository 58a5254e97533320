"""Ctrl-C and ``kill``: the first signal asks training to finish its step, save and end, a second ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from minitl.errors import InterruptedRunError

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name))


class Interruption:
    """Notes signals in a ``with`` block, in which Ctrl-C therefore raises nothing.

    Outside the main thread, where Python allows no handlers, it notes none, and Ctrl-C does what it always does.

    Attributes:
        signal_number: of the signal that asked to end, or None.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def check(self) -> None:
        """Raise an InterruptedRunError if a signal has come."""
        if self.signal_number is not None:
            name = signal.Signals(self.signal_number).name
            raise InterruptedRunError(f"interrupted by {name}", self.signal_number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None:
            os._exit(128 + number)
        self.signal_number = number
        # not print: the signal may have come while standard error was being written to
        os.write(2, b"\nending after this step; a second signal ends at once, without saving\n")
