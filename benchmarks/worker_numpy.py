"""A worker that multiplies matrices with NumPy, that is with the BLAS it ships (OpenBLAS); see harness/serve.py."""

from typing import Any

import numpy as np
from harness.serve import Unavailable, serve
from harness.timing import seconds_of


class NumpyWorker:
    """Plain ``np.matmul`` into arrays that are used again."""

    def gemm(self, products: list[dict[str, Any]], precision: str) -> list[float]:
        """Return the seconds of each product; see harness/rates.py for what a product is."""
        if precision != "float32":
            raise Unavailable(f"not measured: NumPy has no {precision}")
        return [self._product(product) for product in products]

    def _product(self, product: dict[str, Any]) -> float:
        m, k, n = product["m"], product["k"], product["n"]
        generator = np.random.default_rng(0)
        a = generator.standard_normal((k, m) if product["kind"] == "weight gradient" else (m, k), dtype=np.float32)
        b = generator.standard_normal((n, k) if product["kind"] == "forward" else (k, n), dtype=np.float32)
        left = a.T if product["kind"] == "weight gradient" else a
        right = b.T if product["kind"] == "forward" else b
        out = np.empty((m, n), dtype=np.float32)
        return seconds_of(lambda: np.matmul(left, right, out=out))


if __name__ == "__main__":
    serve(NumpyWorker())
