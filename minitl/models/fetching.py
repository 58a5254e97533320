"""What all sources of weights share: a failure with a reason, one line for people, and a limit on waiting."""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

_TRUE = {"1", "ON", "YES", "TRUE"}  # what huggingface_hub takes for true


class SourceFailed(Exception):
    """This source does not have the model; the message is the reason, and the next source is tried."""


class Clock:
    """When something was last heard from a running download."""

    def __init__(self) -> None:
        self.touch()

    def touch(self) -> None:
        """Something arrived just now."""
        self.last = time.monotonic()


def is_true(variable: str) -> bool:
    """Whether an environment variable is set to a value that means yes."""
    return os.environ.get(variable, "").upper() in _TRUE


def is_offline() -> bool:
    """Whether the user forbade the network, by ``HF_HUB_OFFLINE`` or ``TRANSFORMERS_OFFLINE``."""
    return is_true("HF_HUB_OFFLINE") or is_true("TRANSFORMERS_OFFLINE")


def shows_progress() -> bool:
    """Whether downloads may write to stderr; ``HF_HUB_DISABLE_PROGRESS_BARS`` says no."""
    return not is_true("HF_HUB_DISABLE_PROGRESS_BARS")


def announce(text: str) -> None:
    """Write one line to stderr, for people."""
    if shows_progress():
        print(f"minitl: {text}", file=sys.stderr, flush=True)


def call_with_patience(function: Callable[[], Result], *, patience: float, clock: Clock | None = None) -> Result:
    """Call ``function`` in a thread of its own and give up when nothing is heard from it.

    A time-out of the library does not do: looking up a host name may block for a minute whatever the time-out is.

    Args:
        function: what to call.
        patience: seconds.
        clock: touched by ``function`` whenever something arrives; patience counts from the last touch.

    Returns:
        What ``function`` returns; what it raises is raised here.

    Raises:
        SourceFailed: nothing was heard for ``patience`` seconds. The thread is left behind; it ends with the program.
    """
    clock = clock or Clock()
    box: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            box.put((function(), None))
        except BaseException as error:
            box.put((None, error))

    clock.touch()
    threading.Thread(target=work, daemon=True, name="minitl-fetch").start()
    while True:
        try:
            value, error = box.get(timeout=0.1)
        except queue.Empty:
            if time.monotonic() - clock.last > patience:
                raise SourceFailed(f"no answer for {patience:g} s") from None
            continue
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # a Result where there is no error
