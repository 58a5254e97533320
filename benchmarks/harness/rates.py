"""The machine's own limits, measured in the same run: the best matrix products and the best memory traffic."""

from dataclasses import dataclass, field
from typing import Any

from harness.child import Worker, WorkerError
from harness.floor import UPDATE_BYTES, ModelSize
from harness.settings import Settings, announce

TOKENS = 640  # rows of the products: one CoNLL-2003 batch of 32
PROGRAMS = {"numpy": "worker_numpy.py", "minitl": "worker_minitl_kernels.py", "torch": "worker_torch_kernels.py"}


@dataclass
class Rates:
    """What floors are computed with.

    Attributes:
        operations: floating-point operations a second of the fastest float32 product measured, by any program.
        bandwidth: bytes a second of the fastest loop that reads and writes arrays.
        source: who was fastest, for the notes of a table.
    """

    operations: float = float("nan")
    bandwidth: float = float("nan")
    source: dict[str, str] = field(default_factory=dict)

    def training_floor(self, size: ModelSize, lengths: list[int]) -> float:
        """Seconds that the useful work of training on these sentences takes at least."""
        return size.training_operations(lengths) / self.operations

    def update_floor(self, size: ModelSize) -> float:
        """Seconds that one step of AdamW takes at least."""
        return UPDATE_BYTES * size.parameters / self.bandwidth

    def sentence(self) -> str:
        """Say what the floors are made of."""
        return (
            f"Floors in this run: float32 products at {self.operations / 1e9:.0f} GFLOP/s "
            f"({self.source['operations']}), memory at {self.bandwidth / 1e9:.1f} GB/s ({self.source['bandwidth']})."
        )


def layer_products(size: ModelSize, tokens: int) -> list[dict[str, Any]]:
    """The matrix products of one encoder layer: forward, gradient of the input, gradient of the weight, by shape.

    ``count`` says how often a layer has it.
    """
    d, f = size.width, size.inner
    products = []
    for inputs, outputs, count in ((d, d, 4), (d, f, 1), (f, d, 1)):
        products += [
            {"kind": "forward", "m": tokens, "k": inputs, "n": outputs, "count": count},
            {"kind": "input gradient", "m": tokens, "k": outputs, "n": inputs, "count": count},
            {"kind": "weight gradient", "m": outputs, "k": tokens, "n": inputs, "count": count},
        ]
    return products


def measure_rates(settings: Settings) -> Rates:
    """Measure both limits, in a few rounds; a program that is not installed is passed over."""
    announce("measuring the machine's limits")
    rates = Rates()
    products = [product for size in settings.sizes() for product in layer_products(size, TOKENS)]
    rounds = 2 if settings.quick else 3
    workers = {name: Worker(script, settings.threads) for name, script in PROGRAMS.items()}
    workers["memory"] = Worker("worker_bandwidth.py", settings.threads)
    try:
        measurements: dict[str, Any] = {
            name: (workers[name], lambda w=workers[name]: w.call("gemm", products=products, precision="float32"))
            for name in PROGRAMS
        }
        measurements["memory"] = (workers["memory"], lambda: workers["memory"].call("measure"))
        results, _ = settings.interleave("limits", measurements, rounds)
    finally:
        for worker in workers.values():
            worker.close()
    speed = {
        name: max(
            2 * p["m"] * p["k"] * p["n"] / s
            for seconds in results[name]
            for p, s in zip(products, seconds, strict=True)
        )
        for name in PROGRAMS
        if name in results
    }
    best = max(speed, key=lambda name: speed[name])
    rates.operations, rates.source["operations"] = speed[best], f"the fastest product of {best}"
    if "memory" not in results:
        raise WorkerError("worker_bandwidth.py measured nothing; is numba or torch installed?")
    loops = {key: max(found[key] for found in results["memory"]) for key in results["memory"][0]}
    best = max(loops, key=lambda name: loops[name])
    rates.bandwidth, rates.source["bandwidth"] = loops[best], best
    return rates
