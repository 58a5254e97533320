"""A worker that runs PyTorch's parts alone: products, AdamW, functional forms; see harness/serve.py."""

import os
import time
from collections.abc import Callable
from typing import Any

from harness.batches import padding_mask
from harness.floor import MODELS
from harness.serve import refuse, serve
from harness.timing import repeat, seconds_of

try:
    import torch
    from torch import Tensor
    from torch.nn import functional
    from transformers import BertConfig, BertForTokenClassification
except ModuleNotFoundError as error:
    refuse(error)

DROPOUT, EPS = 0.1, 1e-12


class TorchKernels:
    """One method a part; each returns seconds."""

    def __init__(self) -> None:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.manual_seed(0)

    def gemm(self, products: list[dict[str, Any]], precision: str) -> list[float]:
        """Return the seconds of each product; see harness/rates.py for what a product is."""
        return [self._product(product, getattr(torch, precision)) for product in products]

    def _product(self, product: dict[str, Any], dtype: torch.dtype) -> float:
        m, k, n = product["m"], product["k"], product["n"]
        left = torch.randn(k, m).to(dtype).t() if product["kind"] == "weight gradient" else torch.randn(m, k).to(dtype)
        right = torch.randn(n, k).to(dtype).t() if product["kind"] == "forward" else torch.randn(k, n).to(dtype)
        out = torch.empty(m, n, dtype=dtype)
        return seconds_of(lambda: torch.mm(left, right, out=out))

    def prepare_adamw(self, model: str) -> None:
        """Give every parameter of a model a gradient."""
        network = BertForTokenClassification(BertConfig(**MODELS[model].config()))
        self.parameters = list(network.parameters())
        self.gradients = [torch.randn_like(parameter) for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.norm = sum(float(gradient.double().square().sum()) for gradient in self.gradients) ** 0.5
        self.optimizer = torch.optim.AdamW(self.parameters, lr=5e-5, weight_decay=0.01, fused=True)

    def adamw(self, steps: int) -> float:
        """Clip and update ``steps`` times, and return the seconds of one; each time gradients are written anew."""
        seconds = 0.0
        for _ in range(steps):
            for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
                parameter.grad.copy_(gradient)
            start = time.perf_counter()
            torch.nn.utils.clip_grad_norm_(self.parameters, 0.9 * self.norm)
            self.optimizer.step()
            seconds += time.perf_counter() - start
        return seconds / steps

    def kernel(self, name: str, arguments: dict[str, Any]) -> tuple[float, ...]:
        """Return the seconds of forward and of backward of one function."""
        inputs, forward = getattr(self, name)(**arguments)
        gradient = None

        def timed() -> tuple[float, float]:
            nonlocal gradient
            start = time.perf_counter()
            y = forward()
            forward_seconds = time.perf_counter() - start
            if gradient is None:
                gradient = torch.randn(y.shape)
            start = time.perf_counter()
            torch.autograd.grad(y, inputs, gradient)
            return forward_seconds, time.perf_counter() - start

        return repeat(timed)

    def _leaves(self, *shapes: tuple[int, ...]) -> list[Tensor]:
        return [torch.randn(shape, requires_grad=True) for shape in shapes]

    def gelu(self, rows: int, columns: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """Bias and GELU."""
        x, bias = self._leaves((rows, columns), (columns,))
        return [x, bias], lambda: functional.gelu(x + bias)

    def softmax(self, rows: int, columns: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """Scale, softmax, dropout."""
        (x,) = self._leaves((rows, columns))
        return [x], lambda: functional.dropout(functional.softmax(x * 0.125, dim=-1), DROPOUT)

    def layer_norm(self, rows: int, columns: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """Dropout, residual, normalisation."""
        x, residual, weight, bias = self._leaves((rows, columns), (rows, columns), (columns,), (columns,))

        def forward() -> Tensor:
            return functional.layer_norm(residual + functional.dropout(x, DROPOUT), (columns,), weight, bias, EPS)

        return [x, residual, weight, bias], forward

    def dropout(self, rows: int, columns: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """Dropout alone."""
        (x,) = self._leaves((rows, columns))
        return [x], lambda: functional.dropout(x, DROPOUT)

    def cross_entropy(self, rows: int, columns: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """Log-softmax, loss, mean."""
        (x,) = self._leaves((rows, columns))
        labels = torch.randint(0, columns, (rows,))
        labels[::4] = -100
        return [x], lambda: functional.cross_entropy(x, labels)

    def embedding(self, rows: int, columns: int, vocabulary: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """Three tables, summed."""
        words, positions, segments = self._leaves((vocabulary, columns), (512, columns), (2, columns))
        ids = [torch.randint(1, len(table), (rows,)) for table in (words, positions, segments)]

        def forward() -> Tensor:
            word_rows = functional.embedding(ids[0], words, padding_idx=0)
            return word_rows + functional.embedding(ids[2], segments) + functional.embedding(ids[1], positions)

        return [words, positions, segments], forward

    def attention(self, lengths: list[int], width: int, heads: int) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """Self-attention over sentences padded to the longest, with a mask where that is needed."""
        shape = (len(lengths), max(lengths), width)
        q, k, v = self._leaves(shape, shape, shape)
        mask = None if min(lengths) == max(lengths) else torch.from_numpy(padding_mask(lengths))[:, None, None, :]

        def forward() -> Tensor:
            split = [rows.view(*shape[:2], heads, width // heads).transpose(1, 2) for rows in (q, k, v)]
            context = functional.scaled_dot_product_attention(*split, attn_mask=mask, dropout_p=DROPOUT)
            return context.transpose(1, 2).reshape(shape)

        return [q, k, v], forward


if __name__ == "__main__":
    serve(TorchKernels())
