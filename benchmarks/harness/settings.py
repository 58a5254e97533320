"""What a run was asked for, and what is found out on the way."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from harness.child import Worker, WorkerError
from harness.conditions import Conditions
from harness.floor import MODELS, ModelSize
from harness.peers import Peer

Result = TypeVar("Result")


@dataclass
class Settings:
    """Options of the command line.

    Attributes:
        rounds: how often every peer is measured; the table has medians.
        quick: much less work in each round, to see that everything runs.
        threads: of every program.
        models: names of the models to run.
        without: peers whose name contains one of these words are left out.
        conditions: whether the machine was quiet.
    """

    rounds: int
    quick: bool
    threads: int
    models: Sequence[str]
    without: Sequence[str] = ()
    conditions: Conditions = field(default_factory=Conditions)

    def sizes(self) -> list[ModelSize]:
        """The models to run."""
        return [MODELS[name] for name in self.models]

    def wanted(self, peers: Sequence[Peer]) -> list[Peer]:
        """Those of the peers that were not left out."""
        return [peer for peer in peers if not any(word in peer.name for word in self.without)]

    def interleave(
        self, title: str, measurements: Mapping[str, tuple[Worker, Callable[[], Result]]], rounds: int | None = None
    ) -> tuple[dict[str, list[Result]], dict[str, str]]:
        """Measure everybody once, then everybody again: A B C A B C ...

        A slow drift of the machine (heat, other guests) then meets all of them. While one is measured, the others wait.

        Args:
            title: for the progress on standard error.
            measurements: for each name its worker and what to do.
            rounds: how often, the settings' own number if None.

        Returns:
            The results of each name, one a round; and for names that failed, why.
        """
        results: dict[str, list[Result]] = {name: [] for name in measurements}
        failures: dict[str, str] = {}
        workers = [worker for worker, _ in measurements.values()]
        for name, (worker, _) in measurements.items():
            try:
                worker.call("peak_memory")  # answered once everything is imported: nobody starts while others run
            except WorkerError as error:
                failures[name] = str(error)
        count = self.rounds if rounds is None else rounds
        for number in range(count):
            for name, (worker, measure) in measurements.items():
                if name in failures:
                    continue
                progress(f"{title}: round {number + 1} of {count}, {name}")
                try:
                    with self.conditions.watch(worker, workers):
                        results[name].append(measure())
                except WorkerError as error:
                    failures[name] = str(error)
        return {name: found for name, found in results.items() if name not in failures}, failures


def progress(text: str) -> None:
    """Show what is going on: overwritten on a terminal, otherwise left out but for new titles."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text[:100]}", end="", file=sys.stderr, flush=True)


def announce(text: str) -> None:
    """Print a line on standard error."""
    print(f"\r\x1b[K{text}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)
