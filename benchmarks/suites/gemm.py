"""Matrix products alone, at the shapes of an encoder layer."""

import statistics
from typing import Any

from harness.child import Worker
from harness.rates import PROGRAMS, TOKENS, layer_products
from harness.settings import Settings, announce
from harness.tables import Column, Table

# Title of a column: the program in harness/rates.py, and the precision.
CONTESTANTS = {
    "numpy": ("numpy", "float32"),
    "minitl": ("minitl", "float32"),
    "torch": ("torch", "float32"),
    "minitl bfloat16": ("minitl", "bfloat16"),
    "torch bfloat16": ("torch", "bfloat16"),
}
COLUMNS = [
    Column("model", "model"),
    Column("product", "product"),
    Column("shape", "m x k x n"),
    *(Column(f"{name.replace(' ', '_')}_gflops", name, ",.0f") for name in CONTESTANTS),
    Column("minitl_over_numpy", "minitl / numpy", "x"),
    Column("minitl_over_torch", "minitl / torch", "x"),
    Column("minitl_bfloat16_over_torch_bfloat16", "minitl bf16 / torch bf16", "x"),
]
RATIOS = (("minitl", "numpy"), ("minitl", "torch"), ("minitl bfloat16", "torch bfloat16"))
NOTES = [
    "GFLOP/s, 2 m k n operations a product; float32 unless said. numpy: `np.matmul`, its OpenBLAS, with `out`; minitl: "
    '`select("matmul", "cpu").matmul`; torch: `torch.mm` with `out`. Operands stay in the caches if they fit.',
    "*harmonic mean* is over the shapes, all alike; *one layer* weighs each with how often an encoder layer has it.",
]


def run(settings: Settings) -> Table:
    """Measure all shapes in all programs."""
    announce("gemm")
    products = [{**p, "model": size.name} for size in settings.sizes() for p in layer_products(size, TOKENS)]
    kept = {name: pair for name, pair in CONTESTANTS.items() if not any(word in name for word in settings.without)}
    workers = {name: Worker(PROGRAMS[program], settings.threads) for name, (program, _) in kept.items()}
    try:
        measurements: dict[str, Any] = {
            name: (
                workers[name],
                lambda w=workers[name], p=precision: w.call("gemm", products=products, precision=p),
            )
            for name, (_, precision) in kept.items()
        }
        results, failures = settings.interleave("gemm", measurements)
    finally:
        for worker in workers.values():
            worker.close()
    seconds = {name: [statistics.median(column) for column in zip(*r, strict=True)] for name, r in results.items()}
    table = Table("gemm", f"Matrix products of an encoder layer at {TOKENS} tokens", COLUMNS, notes=list(NOTES))
    table.notes += [f"{name}: {reason}" for name, reason in failures.items()]
    rates = {
        name: [_operations(p) / s for p, s in zip(products, column, strict=True)] for name, column in seconds.items()
    }
    for number, p in enumerate(products):
        row = {"model": p["model"], "product": p["kind"], "shape": f"{p['m']} x {p['k']} x {p['n']}"}
        table.rows.append(_row(row, {name: column[number] for name, column in rates.items()}))
    for model in [*settings.models, "all"]:
        kept_numbers = [i for i, p in enumerate(products) if model in ("all", p["model"])]
        means = {n: statistics.harmonic_mean([column[i] for i in kept_numbers]) for n, column in rates.items()}
        table.rows.append(_row({"model": model, "product": "harmonic mean"}, means))
        if model != "all":
            layer = {name: _layer_rate(products, column, kept_numbers) for name, column in seconds.items()}
            table.rows.append(_row({"model": model, "product": "one layer"}, layer))
    return table


def _operations(product: dict[str, Any]) -> float:
    return 2.0 * product["m"] * product["k"] * product["n"]


def _layer_rate(products: list[dict[str, Any]], seconds: list[float], numbers: list[int]) -> float:
    """Operations a second of all products of a layer, one after the other."""
    operations = sum(products[i]["count"] * _operations(products[i]) for i in numbers)
    return operations / sum(products[i]["count"] * seconds[i] for i in numbers)


def _row(row: dict[str, Any], rates: dict[str, float]) -> dict[str, Any]:
    """Add the speeds and their ratios to a row."""
    for name, rate in rates.items():
        row[f"{name.replace(' ', '_')}_gflops"] = rate / 1e9
    for ours, theirs in RATIOS:
        if ours in rates and theirs in rates:
            row[f"{ours.replace(' ', '_')}_over_{theirs.replace(' ', '_')}"] = rates[ours] / rates[theirs]
    return row
