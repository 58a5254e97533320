"""The most memory a training step takes: peak resident size of a fresh process."""

from typing import Any

from harness.batches import Workload, dense, natural
from harness.child import Worker, WorkerError
from harness.floor import MODELS, ModelSize
from harness.peers import EQUAL_LENGTHS, MINITL, TORCH_COMPILE, Peer
from harness.settings import Settings, announce
from harness.tables import Column, Table

COMPILED = MODELS["minilm"]  # for torch.compile: compiling a large model takes minutes
COLUMNS = [
    Column("model", "model"),
    Column("workload", "sentences"),
    Column("program", "program"),
    Column("peak_megabytes", "peak MB", ",.0f"),
    Column("megabytes_before", "after imports MB", ",.0f"),
    Column("over_minitl_float32", "of minitl float32", "x"),
    Column("note", "note"),
]
NOTES = [
    "Peak resident size (`ru_maxrss`, in 10^6 bytes) of a process that makes the model and its optimizer and goes "
    "twice through the batches: code, parameters, gradients, moments, activations. One process each; the number "
    "hardly changes from run to run. *of minitl float32*: how many times as much.",
    "Parameters, gradients and both moments alone take 16 bytes a parameter: 361 MB (minilm), 1742 MB (bert-base).",
    "torch.compile includes what compiling takes.",
]


def run(settings: Settings) -> Table:
    """Measure all models, workloads and peers."""
    table = Table("memory", "Peak memory of training", COLUMNS, notes=list(NOTES))
    for size in settings.sizes():
        for workload in (dense(16, 128), natural("conll2003", 32, 2)):
            announce(f"memory: {size.name}, {workload.name}")
            peers = [peer for peer in settings.wanted(EQUAL_LENGTHS) if peer is not TORCH_COMPILE or size is COMPILED]
            rows = [_row(settings, size, workload, peer) for peer in peers]
            ours = next((row.get("peak_megabytes") for row in rows if row["program"] == MINITL.name), None)
            for row in rows:
                if ours and "peak_megabytes" in row:
                    row["over_minitl_float32"] = row["peak_megabytes"] / ours
            table.rows += rows
    return table


def _row(settings: Settings, size: ModelSize, workload: Workload, peer: Peer) -> dict[str, Any]:
    announce(f"  {peer.name}")
    row: dict[str, Any] = {"model": size.name, "workload": workload.name, "program": peer.name}
    worker = Worker(peer.script, settings.threads)
    try:
        row["megabytes_before"] = worker.call("peak_memory") / 1e6
        worker.call("prepare_training", model=size.name, **peer.prepare)
        worker.call("load", orders={peer.order: workload.orders[peer.order]}, scored_share=workload.scored_share)
        worker.call("steps", order=peer.order, repeats=1 if settings.quick else 2, **peer.options)
        row["peak_megabytes"] = worker.call("peak_memory") / 1e6
    except WorkerError as error:
        return {**row, "megabytes_before": None, "note": str(error)}
    finally:
        worker.close()
    return row
