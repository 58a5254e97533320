"""AdamW with clipping alone, as memory traffic."""

import statistics
from typing import Any

from harness.child import Worker, WorkerError
from harness.floor import UPDATE_BYTES
from harness.rates import PROGRAMS
from harness.settings import Settings, announce
from harness.tables import Column, Table

from suites.models import ratio

COLUMNS = [
    Column("model", "model"),
    Column("program", "program"),
    Column("milliseconds", "ms/step", ".1f"),
    Column("gigabytes_per_second", "GB/s", ".1f"),
    Column("share_of_bandwidth", "of bandwidth", "%"),
    Column("minitl_speed", "minitl is", "x"),
    Column("note", "note"),
]
NAMES = {"minitl": "minitl, clip_grad_norm + AdamW", "torch": "torch, clip_grad_norm_ + fused AdamW"}
NOTES = [
    f"Traffic is counted as {UPDATE_BYTES} bytes a parameter (read parameter, gradient and both moments; write all but "
    "the gradient), though clipping reads the gradient once more. Every step clips, gradients that were just written.",
    "*of bandwidth*: against the fastest of the plain loops at the top, measured in the same rounds.",
]
STEPS = {"minilm": 4, "bert-base": 1}  # in one measurement


def run(settings: Settings) -> Table:
    """Measure both programs and the machine's memory, for each model."""
    table = Table("adamw", "AdamW with clipping", COLUMNS, notes=list(NOTES))
    for size in settings.sizes():
        announce(f"adamw: {size.name}")
        memory = Worker("worker_bandwidth.py", settings.threads)
        workers = {name: Worker(PROGRAMS[name], settings.threads) for name in NAMES if name not in settings.without}
        try:
            failures = {name: reason for name, w in workers.items() if (reason := _prepare(w, size.name))}
            measurements: dict[str, Any] = {"memory": (memory, lambda w=memory: w.call("measure"))}
            for name, worker in workers.items():
                if name not in failures:
                    measurements[name] = (worker, lambda w=worker: w.call("adamw", steps=STEPS[size.name]))  # noqa: B023
            results, failed = settings.interleave(f"adamw {size.name}", measurements)
        finally:
            for worker in (memory, *workers.values()):
                worker.close()
        failures |= failed
        loops = results.pop("memory", [])
        best = {name: statistics.median(found[name] for found in loops) for name in (loops[0] if loops else {})}
        table.rows += [
            {"model": size.name, "program": name, "gigabytes_per_second": rate / 1e9} for name, rate in best.items()
        ]
        for name in workers:
            row: dict[str, Any] = {"model": size.name, "program": NAMES[name], "note": failures.get(name, "")}
            if name in results:
                seconds = statistics.median(results[name])
                rate = UPDATE_BYTES * size.parameters / seconds
                row |= {"milliseconds": 1e3 * seconds, "gigabytes_per_second": rate / 1e9}
                row["share_of_bandwidth"] = rate / max(best.values()) if best else None
                row["minitl_speed"] = ratio([1 / s for s in results.get("minitl", [])], [1 / s for s in results[name]])
            table.rows.append(row)
    return table


def _prepare(worker: Worker, model: str) -> str:
    """Let a worker make its parameters and take a first step; return why it could not."""
    try:
        worker.call("prepare_adamw", model=model)
        worker.call("adamw", steps=2)
    except WorkerError as error:
        return str(error)
    return ""
