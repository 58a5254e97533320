"""Each fused operation alone, forward and backward, against PyTorch's functional forms."""

import statistics
from typing import Any

from harness.child import Worker
from harness.floor import MODELS
from harness.kernel_cases import KernelCase, cases
from harness.rates import PROGRAMS, Rates, measure_rates
from harness.settings import Settings, announce
from harness.tables import Column, Table

COLUMNS = [
    Column("model", "model"),
    Column("kernel", "kernel"),
    Column("shape", "shape"),
    Column("direction", "direction"),
    Column("minitl_microseconds", "minitl µs", ",.0f"),
    Column("torch_microseconds", "torch µs", ",.0f"),
    Column("minitl_over_torch", "minitl is", "x"),
    Column("floor_microseconds", "floor µs", ",.0f"),
    Column("minitl_share_of_floor", "minitl of floor", "%"),
    Column("torch_share_of_floor", "torch of floor", "%"),
    Column("note", "note"),
]
SIZES = (("minilm", 5, 128), ("bert-base", 16, 128))  # model, sentences, length
NOTES = [
    "Both go through their autograd; backward gives the gradients of all inputs. *minitl is N x*: how many times as "
    "fast, median of the rounds. Dropout 0.1 where an operation has it.",
    "*floor*: every argument read once and every result written once at the memory rate of this run, or the arithmetic "
    "of attention at the best rate of products, whichever takes longer. Small arrays stay in a cache, which is faster "
    "than memory: they may exceed 100 %.",
    "torch's forms: gelu(x + bias); dropout(softmax(x * scale)); layer_norm(residual + dropout(x)); three embeddings, "
    "summed; scaled_dot_product_attention on padded sentences.",
]


def run(settings: Settings) -> Table:
    """Measure every kernel in both programs."""
    rates = measure_rates(settings)
    table = Table("kernels", "Fused operations alone", COLUMNS, notes=[*NOTES, rates.sentence()])
    workers = {name: Worker(PROGRAMS[name], settings.threads) for name in ("minitl", "torch")}
    try:
        for model, sentences, length in SIZES:
            if model in settings.models:
                for case in cases(MODELS[model], 2 if settings.quick else sentences, length):
                    announce(f"kernels: {model} {case.kernel} {case.shape}")
                    table.rows += _rows(settings, rates, workers, model, case)
    finally:
        for worker in workers.values():
            worker.close()
    return table


def _rows(
    settings: Settings, rates: Rates, workers: dict[str, Worker], model: str, case: KernelCase
) -> list[dict[str, Any]]:
    """Measure one kernel: a row for forward, one for backward."""
    measurements: dict[str, Any] = {
        name: (worker, lambda w=worker: w.call("kernel", name=case.kernel, arguments=case.arguments))
        for name, worker in workers.items()
        if name not in settings.without
    }
    results, failures = settings.interleave(f"kernels {case.kernel}", measurements)
    note = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
    floors = (
        max(case.forward_bytes / rates.bandwidth, case.forward_operations / rates.operations),
        max(case.backward_bytes / rates.bandwidth, 2 * case.forward_operations / rates.operations),
    )
    rows = []
    for part, direction in enumerate(("forward", "backward")):
        row: dict[str, Any] = {"model": model, "kernel": case.kernel, "shape": case.shape, "direction": direction}
        row |= {"floor_microseconds": 1e6 * floors[part], "note": note}
        for name, found in results.items():
            seconds = statistics.median(times[part] for times in found)
            row[f"{name}_microseconds"] = 1e6 * seconds
            row[f"{name}_share_of_floor"] = floors[part] / seconds
        if len(results) == 2:
            pairs = zip(results["torch"], results["minitl"], strict=True)
            row["minitl_over_torch"] = statistics.median(theirs[part] / ours[part] for theirs, ours in pairs)
        rows.append(row)
    return rows
