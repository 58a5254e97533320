"""A worker that runs minitl's parts alone: products, AdamW, fused operations; see harness/serve.py."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from harness.floor import MODELS
from harness.minitl_precision import enter_precision
from harness.serve import refuse, serve
from harness.timing import repeat, seconds_of

try:
    import minitl
    from minitl import Tensor, ops, optim
    from minitl.kernels import select
    from minitl.models import BertConfig, BertForTokenClassification
except ModuleNotFoundError as error:
    refuse(error)

DROPOUT, EPS = 0.1, 1e-12


class MinitlKernels:
    """One method a part; each returns seconds."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def gemm(self, products: list[dict[str, Any]], precision: str) -> list[float]:
        """Return the seconds of each product; see harness/rates.py for what a product is."""
        with ExitStack() as stack:
            enter_precision(stack, precision)
            return [self._product(product, precision) for product in products]

    def _product(self, product: dict[str, Any], precision: str) -> float:
        m, k, n = product["m"], product["k"], product["n"]
        transpose_a, transpose_b = product["kind"] == "weight gradient", product["kind"] == "forward"
        a = self._normal(k, m) if transpose_a else self._normal(m, k)
        b = self._normal(n, k) if transpose_b else self._normal(k, n)
        out = np.empty((m, n), dtype=np.float32)
        matmul = select("matmul", "cpu").matmul
        options = {"transpose_a": transpose_a, "transpose_b": transpose_b, "out": out}
        if precision == "bfloat16":
            options["bfloat16"] = True
        return seconds_of(lambda: matmul(a, b, **options))

    def prepare_adamw(self, model: str) -> None:
        """Give every parameter of a model a gradient."""
        minitl.manual_seed(0)
        network = BertForTokenClassification(BertConfig(**MODELS[model].config()))
        self.parameters = list(network.parameters())
        self.optimizer = optim.AdamW(optim.decay_groups(network, weight_decay=0.01), lr=5e-5)
        self.gradients = [self.generator.standard_normal(x.shape, dtype=np.float32) for x in self.parameters]
        self.norm = sum(float(np.square(gradient, dtype=np.float64).sum()) for gradient in self.gradients) ** 0.5

    def adamw(self, steps: int) -> float:
        """Clip and update ``steps`` times, and return the seconds of one; each time gradients are written anew."""
        seconds = 0.0
        for _ in range(steps):
            self.optimizer.zero_grad()
            for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
                parameter.grad = Tensor(gradient)
            start = time.perf_counter()
            optim.clip_grad_norm(self.parameters, 0.9 * self.norm)
            self.optimizer.step()
            seconds += time.perf_counter() - start
        return seconds / steps

    def kernel(self, name: str, arguments: dict[str, Any]) -> tuple[float, ...]:
        """Return the seconds of forward and of backward of one fused operation."""
        inputs, forward = getattr(self, name)(**arguments)
        gradient = None

        def timed() -> tuple[float, float]:
            nonlocal gradient
            for tensor in inputs:
                tensor.grad = None
            start = time.perf_counter()
            y = forward()
            forward_seconds = time.perf_counter() - start
            if gradient is None:
                gradient = Tensor(self._normal(*y.shape))
            start = time.perf_counter()
            y.backward(gradient)
            return forward_seconds, time.perf_counter() - start

        return repeat(timed)

    def _normal(self, *shape: int) -> np.ndarray:
        return np.asarray(self.generator.standard_normal(shape, dtype=np.float32))

    def _leaves(self, *shapes: tuple[int, ...]) -> list[Tensor]:
        return [Tensor(self._normal(*shape), requires_grad=True) for shape in shapes]

    def gelu(self, rows: int, columns: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """Bias and GELU."""
        x, bias = self._leaves((rows, columns), (columns,))
        return [x, bias], lambda: ops.gelu(x, bias)

    def softmax(self, rows: int, columns: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """Scale, softmax, dropout."""
        (x,) = self._leaves((rows, columns))
        return [x], lambda: ops.softmax(x, scale=0.125, dropout=DROPOUT)

    def layer_norm(self, rows: int, columns: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """Dropout, residual, normalisation."""
        x, residual, weight, bias = self._leaves((rows, columns), (rows, columns), (columns,), (columns,))
        options = {"eps": EPS, "dropout": DROPOUT}
        return [x, residual, weight, bias], lambda: ops.layer_norm(x, weight, bias, residual=residual, **options)

    def dropout(self, rows: int, columns: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """Dropout alone."""
        (x,) = self._leaves((rows, columns))
        return [x], lambda: ops.dropout(x, DROPOUT)

    def cross_entropy(self, rows: int, columns: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """Log-softmax, loss, mean."""
        (x,) = self._leaves((rows, columns))
        labels = self.generator.integers(0, columns, rows)
        labels[::4] = ops.IGNORE_INDEX
        return [x], lambda: ops.cross_entropy(x, labels)

    def embedding(self, rows: int, columns: int, vocabulary: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """Three tables, summed."""
        tables = self._leaves((vocabulary, columns), (512, columns), (2, columns))
        ids = [self.generator.integers(1, len(table.array), rows) for table in tables]
        return tables, lambda: ops.embedding_sum(tables, ids, padding_ids=[0, None, None])

    def attention(self, lengths: list[int], width: int, heads: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """Packed self-attention."""
        q, k, v = self._leaves(*[(sum(lengths), width)] * 3)
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        return [q, k, v], lambda: ops.attention(q, k, v, offsets, heads=heads, dropout=DROPOUT)


if __name__ == "__main__":
    serve(MinitlKernels())
