"""What the suites about whole models share: every peer runs the same workloads, and becomes a row of the table."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.batches import Workload
from harness.child import WorkerError
from harness.floor import ModelSize
from harness.machine import has_bfloat16
from harness.peers import MINITL, MINITL_BF16, TORCH_BF16, Peer
from harness.rates import Rates
from harness.settings import Settings, announce, progress
from harness.tables import Column
from harness.workers import Workers

COLUMNS = [
    Column("model", "model"),
    Column("workload", "sentences"),
    Column("program", "program"),
    Column("threads", ""),
    Column("tokens_per_second", "tokens/s", ",.0f"),
    Column("tokens_per_second_least", "", ",.0f"),
    Column("tokens_per_second_most", "", ",.0f"),
    Column("milliseconds_per_batch", "ms/batch", ",.0f"),
    Column("useful_tokens", "", "d"),
    Column("padded_tokens", "", "d"),
    Column("floor_milliseconds_per_batch", "", ",.1f"),
    Column("share_of_floor", "of floor", "%"),
    Column("share_of_floor_with_update", "of floor with AdamW", "%"),
    Column("minitl_float32_speed", "minitl float32 is", "x"),
    Column("minitl_bfloat16_speed", "minitl bfloat16 is", "x"),
    Column("first_pass_seconds", "first pass s", ".1f"),
    Column("rounds", "", "d"),
    Column("note", "note"),
]
INFERENCE_COLUMNS = [column for column in COLUMNS if column.key != "share_of_floor_with_update"]

EMULATED = {TORCH_BF16.name: "left out: this processor has no bfloat16, torch imitates it; see another workload"}


def skipped_at_natural_lengths() -> dict[str, str]:
    """Who is left out where rounds are long, and why: torch's bfloat16 where the processor would have to imitate it."""
    return {} if has_bfloat16() else EMULATED


class ModelRuns:
    """Runs one model in all its peers.

    Args:
        settings: of the run.
        rates: the machine's limits.
        size: the model.
        peers: who runs it.
        task: ``"training"`` or ``"inference"``.
        folder: with exported models, for ONNX Runtime.
        failures: peers that cannot run, and why.
    """

    def __init__(
        self,
        settings: Settings,
        rates: Rates,
        size: ModelSize,
        peers: Sequence[Peer],
        task: str,
        folder: Path | None = None,
        failures: dict[str, str] | None = None,
    ) -> None:
        self.settings, self.rates, self.size, self.task = settings, rates, size, task
        self.peers = settings.wanted(peers)
        self.workers = Workers(settings.threads)
        for peer in self.peers:
            if failures and peer.name in failures:
                self.workers.fail(peer, failures[peer.name])
        announce(f"{task}: {size.name}, {settings.threads} threads")
        for peer in self.peers:
            files = {"path": str(folder / f"{size.name}.onnx")} if folder and "onnx" in peer.script else {}
            self.workers.prepare(peer, f"prepare_{task}", model=size.name, **files)

    def __enter__(self) -> "ModelRuns":
        return self

    def __exit__(self, *_: object) -> None:
        self.workers.close()

    def rows(
        self, workload: Workload, repeats: int = 1, skip: Mapping[str, str] | None = None, **cells: Any
    ) -> list[dict[str, Any]]:
        """Measure a workload in every peer, and return one row for each.

        Args:
            workload: the batches of one round.
            repeats: how often a round goes through them.
            skip: names of peers to leave out this time, and what their row says; "" for no row.
            cells: further values for every row.
        """
        skip = skip or {}
        title = f"{self.task} {self.size.name}, {workload.name}"
        announce(f"  {workload.name}")
        chosen = [peer for peer in self.peers if self.workers.runs(peer) and peer.name not in skip]
        first_pass = {peer.name: self._first_pass(peer, workload, title) for peer in chosen}
        measurements = {
            peer.name: (self.workers[peer], self._round(peer, repeats)) for peer in chosen if self.workers.runs(peer)
        }
        results, failures = self.settings.interleave(title, measurements)
        for peer in chosen:
            if peer.name in failures:
                self.workers.fail(peer, failures[peer.name])
        speeds = {
            peer.name: [repeats * workload.tokens(peer.order) / seconds for seconds in results[peer.name]]
            for peer in chosen
            if peer.name in results
        }
        notes = {**self.workers.failures, **skip}
        return [
            {**self._row(peer, workload, speeds, notes), **cells, "first_pass_seconds": first_pass.get(peer.name)}
            for peer in self.peers
            if peer.name in speeds or notes.get(peer.name)
        ]

    def _first_pass(self, peer: Peer, workload: Workload, title: str) -> float | None:
        """Hand the batches over and go through them once: code is loaded, compiled, and memory touched."""
        progress(f"{title}: first pass, {peer.name}")
        worker = self.workers[peer]
        try:
            worker.call("load", orders=workload.orders, scored_share=workload.scored_share)
            seconds: float = worker.call("steps", order=peer.order, **peer.options)
        except WorkerError as error:
            self.workers.fail(peer, str(error))
            return None
        return seconds

    def _round(self, peer: Peer, repeats: int) -> Callable[[], float]:
        worker = self.workers[peer]
        return lambda: worker.call("steps", order=peer.order, repeats=repeats, **peer.options)

    def _row(
        self, peer: Peer, workload: Workload, speeds: dict[str, list[float]], notes: dict[str, str]
    ) -> dict[str, Any]:
        row: dict[str, Any] = {
            "model": self.size.name,
            "workload": workload.name,
            "program": peer.name,
            "threads": self.settings.threads,
        }
        if peer.name not in speeds:
            return {**row, "note": notes[peer.name]}
        tokens, batches = workload.tokens(peer.order), len(workload.orders[peer.order])
        speed = statistics.median(speeds[peer.name])
        training = self.task == "training"
        operations = self.size.training_operations if training else self.size.forward_operations
        floor = operations(workload.lengths(peer.order)) / self.rates.operations
        row |= {
            "tokens_per_second": speed,
            "tokens_per_second_least": min(speeds[peer.name]),
            "tokens_per_second_most": max(speeds[peer.name]),
            "milliseconds_per_batch": 1e3 * tokens / speed / batches,
            "useful_tokens": tokens,
            "padded_tokens": workload.padded(peer.order),
            "floor_milliseconds_per_batch": 1e3 * floor / batches,
            "share_of_floor": floor * speed / tokens,
            "minitl_float32_speed": ratio(speeds.get(MINITL.name), speeds[peer.name]),
            "minitl_bfloat16_speed": ratio(speeds.get(MINITL_BF16.name), speeds[peer.name]),
            "rounds": len(speeds[peer.name]),
        }
        if training:
            whole = floor + batches * self.rates.update_floor(self.size)
            row["share_of_floor_with_update"] = whole * speed / tokens
        return row


def ratio(ours: list[float] | None, theirs: list[float]) -> float | None:
    """Return the median, over rounds, of how many times as fast we were in the same round."""
    if not ours:
        return None
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=False))
