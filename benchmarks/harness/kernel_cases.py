"""The fused kernels, at which sizes, and the least traffic and arithmetic of each.

Bytes are those of a float32 kernel that reads every argument once and writes every result once; what fits into a cache
may move faster than memory allows. Operations are counted for attention only.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.batches import Workload, dense, natural
from harness.floor import ModelSize


@dataclass(frozen=True)
class KernelCase:
    """One kernel at one size.

    Attributes:
        kernel: which; the workers have a method of this name.
        shape: for people.
        arguments: of the workers' methods.
        forward_bytes, backward_bytes: least traffic.
        forward_operations: least arithmetic; backward has twice as much.
    """

    kernel: str
    shape: str
    arguments: dict[str, Any]
    forward_bytes: float
    backward_bytes: float
    forward_operations: float = 0.0


def cases(size: ModelSize, sentences: int, length: int) -> list[KernelCase]:
    """All kernels in a dense batch of a model, and attention in a CoNLL-2003 batch too."""
    rows, d, f, c = sentences * length, size.width, size.inner, size.classes
    scores = sentences * size.heads * length
    table = 4.0 * size.vocabulary * d
    return [
        _rows("gelu", rows, f, 8, 12),
        _rows("softmax", scores, length, 8, 12),
        _rows("layer_norm", rows, d, 12, 16),
        _rows("dropout", rows, d, 8, 8),
        _rows("cross_entropy", rows, c, 4, 8),
        KernelCase(
            "embedding",
            f"{rows} x {d} of {size.vocabulary}",
            {"rows": rows, "columns": d, "vocabulary": size.vocabulary},
            8.0 * rows * d,
            table + 12.0 * rows * d,  # a new gradient is set to zero first
        ),
        _attention(size, dense(sentences, length)),
        _attention(size, natural("conll2003", 32, 1)),
    ]


def _rows(kernel: str, rows: int, columns: int, forward: int, backward: int) -> KernelCase:
    """A kernel over a matrix; ``forward`` and ``backward`` are bytes an element."""
    elements = rows * columns
    arguments = {"rows": rows, "columns": columns}
    return KernelCase(kernel, f"{rows} x {columns}", arguments, float(forward * elements), float(backward * elements))


def _attention(size: ModelSize, workload: Workload) -> KernelCase:
    lengths = workload.grouped[0]
    elements = sum(lengths) * size.width
    return KernelCase(
        "attention",
        f"{workload.name}, {size.heads} heads of {size.width // size.heads}",
        {"lengths": lengths, "width": size.width, "heads": size.heads},
        16.0 * elements,
        32.0 * elements,
        4.0 * size.width * float(np.square(lengths).sum()),
    )
