"""A progress bar for training: loss, tokens per second, time left."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

SECONDS_BETWEEN_LINES = 60.0  # where no bar moves


class TrainingProgress:
    """Shows how far an epoch is, on standard error: a moving bar on a terminal; elsewhere (a log, a notebook) a line
    each minute; and one closing line.

    Use it in a ``with`` block and call :meth:`advance` after each step.

    Args:
        steps: how many there will be.
        description: what stands before the bar.
        stream: where to write, standard error by default.
        done: how many are done already, before an interruption.
        quiet: whether to write nothing at all.
    """

    def __init__(
        self, steps: int, description: str, stream: TextIO | None = None, *, done: int = 0, quiet: bool = False
    ) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

        self.stream = stream or sys.stderr
        self.description = description
        self.steps, self.done, self.tokens = steps, done, 0
        self.quiet = quiet
        self.average_loss = 0.0
        self._labels = 0
        self._start = self._last_line = time.perf_counter()
        layout = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps, {elapsed}<{remaining}{postfix}"
        self._bar = tqdm(
            total=steps,
            initial=done,
            desc=description,
            file=self.stream,
            disable=quiet or not self.stream.isatty(),
            dynamic_ncols=True,
            leave=False,
            bar_format=layout,
        )

    @property
    def tokens_per_second(self) -> float:
        """Tokens read per second since the start."""
        return self.tokens / max(time.perf_counter() - self._start, 1e-9)

    def advance(self, loss: float, *, labels: int, tokens: int) -> None:
        """Count one step with its mean loss over ``labels`` labels, and the tokens it read."""
        self.done += 1
        self.tokens += tokens
        self._labels += labels
        if self._labels:
            self.average_loss += (loss - self.average_loss) * labels / self._labels
        self._bar.set_postfix_str(f"loss {self.average_loss:.3f}, {self._rate()}", refresh=False)
        self._bar.update()
        now = time.perf_counter()
        if self._bar.disable and not self.quiet and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._print(f"{self.done:,} of {self.steps:,} steps, loss {self.average_loss:.3f}, {self._rate()}")

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()
        if kind is None and not self.quiet:
            seconds = time.perf_counter() - self._start
            self._print(f"loss {self.average_loss:.3f}, {self._rate()}, {seconds:.0f} s")

    def _rate(self) -> str:
        return f"{self.tokens_per_second:,.0f} tokens/s"

    def _print(self, text: str) -> None:
        print(f"{self.description}: {text}", file=self.stream, flush=True)
