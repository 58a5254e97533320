"""The number of threads, the hash seed, the time zone, the locale and the folder change no bit of any result.

That holds for the compiled kernels: masks, the order of the data, initial weights, every kernel alone, and the weights
after 20 steps of training. Where a BLAS multiplies matrices (``ops.matmul`` of general shapes, and the reference
kernels), it may cut a product into other pieces with another number of threads, and sums of other pieces are rounded
otherwise. Once a kernel has run on the pool the BLAS has one thread; before that ``ops.matmul`` is hashed too and shown
(``pytest -rP``), but nothing is required of it.

This file is also the program that the test runs, in fresh processes: a BLAS reads its settings when it is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import minitl
from minitl import Tensor, ops, optim
from minitl.kernels.adamw import Segment
from minitl.kernels.select import select
from minitl.models import BertConfig, BertForTokenClassification
from minitl.random import Generator, permutation
from minitl.text import PackedBatch, batches
from minitl.training import train_step

LONG = 3 * 2**16 + 5  # elements: more than one piece of every kernel that works in pieces
ROWS, WIDTH = 300, 384


def normal(seed: int, *shape: int) -> np.ndarray:
    return Generator(seed).normal(shape).astype(np.float32)


def masks() -> Iterator[np.ndarray]:
    keep_mask = select("dropout", "cpu").keep_mask
    yield keep_mask((LONG,), probability=0.1, seed=2**40 + 1, call=7, xp=np)
    minitl.manual_seed(3)
    yield ops.dropout(Tensor(np.ones((ROWS, WIDTH), np.float32)), 0.5).numpy()


def data_order() -> Iterator[np.ndarray]:
    """The order of sentences, and the batches that come of it; as much of a data set as batching looks at."""
    yield permutation(20_000, seed=5, stream=1)
    windows = [[SimpleNamespace(sentence=i, input_ids=np.full(1 + i * i % 23, i), labels=None)] for i in range(500)]
    encoded: Any = type("Encoded", (), {"__len__": lambda self: 500, "windows": windows, "word_counts": range(500)})()
    for epoch in range(2):
        for batch in batches(encoded, 16, seed=4, epoch=epoch):
            yield batch.packed.input_ids
            yield batch.packed.cu_seqlens


def initial_weights() -> Iterator[np.ndarray]:
    minitl.manual_seed(1)
    sizes: dict[str, Any] = {"vocab_size": 500, "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3}
    model = BertForTokenClassification(BertConfig(**sizes, intermediate_size=200, num_labels=9))
    for name, values in model.state_dict().items():
        yield np.frombuffer(name.encode(), np.uint8)
        yield values


def layer_norm() -> Iterator[np.ndarray]:
    x, residual, grad = (normal(seed, ROWS, WIDTH) for seed in range(3))
    weight, bias = normal(3, WIDTH), normal(4, WIDTH)
    kernel, dropout = select("layer_norm", "cpu"), {"dropout": 0.1, "seed": 1, "call": 2}
    y, total, mean, rstd = kernel.forward(x, residual, weight, bias, eps=1e-12, **dropout)
    yield from (y, total, mean, rstd, *kernel.backward(grad, total, weight, mean, rstd, **dropout))


def softmax() -> Iterator[np.ndarray]:
    kernel, x = select("softmax", "cpu"), normal(0, ROWS, WIDTH)
    options = {"scale": 0.3, "dropout": 0.1, "seed": 1, "call": 2}
    y, probabilities = kernel.forward(x, x < 1, **options)
    yield from (y, kernel.backward(normal(1, ROWS, WIDTH), probabilities, **options))


def cross_entropy() -> Iterator[np.ndarray]:
    kernel, logits = select("cross_entropy", "cpu"), normal(0, 3000, 50)
    labels = permutation(3000, seed=1, stream=0) % 51 - 1
    labels = np.where(labels < 0, -100, labels)
    options = {"ignore_index": -100, "label_smoothing": 0.1}
    loss, log_sum_exp, total = kernel.forward(logits, labels, None, **options)
    yield from (loss, log_sum_exp, kernel.backward(np.float32(1), logits, labels, None, log_sum_exp, total, **options))


def gelu() -> Iterator[np.ndarray]:
    kernel, x, bias, grad = select("gelu", "cpu"), normal(0, ROWS, WIDTH), normal(1, WIDTH), normal(2, ROWS, WIDTH)
    for approximate in ("none", "tanh"):
        yield kernel.forward(x, bias, approximate=approximate)
        yield from kernel.backward(grad, x, bias, approximate=approximate)


def embedding() -> Iterator[np.ndarray]:
    index, out = permutation(5000, seed=1, stream=0) % 70, np.zeros((70, 64), np.float32)
    yield select("embedding", "cpu").backward(normal(0, 5000, 64), index, out=out, padding_index=3)


def adamw() -> Iterator[np.ndarray]:
    kernel = select("adamw", "cpu")
    p, g, m, v = (normal(seed, LONG) for seed in range(4))
    yield np.array(kernel.global_norm([g, p]))
    v *= v
    for torch_compat in (False, True):
        table = [Segment(0, LONG - 9, 1e-3, 0.01, 5), Segment(LONG - 9, 9, 1e-2, 0.0, 1)]
        kernel.update(p, g, m, v, segments=table, beta1=0.9, beta2=0.999, eps=1e-8, torch_compat=torch_compat)
        yield from (p, m, v)


def matmul() -> Iterator[np.ndarray]:
    for m, k, n in ((129, 511, 257), (1, 3000, 64), (64, 3000, 1)):
        yield select("matmul", "cpu").matmul(normal(0, m, k), normal(1, k, n))


def linear() -> Iterator[np.ndarray]:
    arrays = (normal(0, ROWS, WIDTH), normal(1, 200, WIDTH), normal(2, 200))
    x, weight, bias = (Tensor(array, requires_grad=True) for array in arrays)
    y = ops.linear(x, weight, bias)
    y.backward(Tensor(normal(3, ROWS, 200)))
    yield y.numpy()
    for tensor in (x, weight, bias):
        assert tensor.grad is not None
        yield tensor.grad.numpy()


def attention() -> Iterator[np.ndarray]:
    q, k, v, grad = (normal(seed, ROWS, 96) for seed in range(4))
    offsets, options = np.array([0, 130, 131, ROWS]), {"heads": 3, "scale": 0.2, "dropout": 0.1, "seed": 1, "call": 2}
    context, log_sum_exp = select("attention", "cpu").forward(q, k, v, offsets, **options)
    yield from (context, *select("attention", "cpu").backward(grad, q, k, v, log_sum_exp, offsets, **options))


def training() -> Iterator[np.ndarray]:
    """All parameters after 20 steps with dropout, warm-up, decay and clipping."""
    minitl.manual_seed(7)
    sizes: dict[str, Any] = {"vocab_size": 300, "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3}
    model = BertForTokenClassification(BertConfig(**sizes, intermediate_size=384, num_labels=5))
    optimizer = optim.AdamW(optim.decay_groups(model, 0.01), lr=1e-3)
    schedule = optim.Schedule(optimizer, 20, warmup=2)
    model.train()
    for number in range(20):
        lengths = 3 + permutation(30, seed=number, stream=0)
        tokens = int(lengths.sum())
        labels = permutation(tokens, seed=number, stream=1) % 7 - 2
        batch = PackedBatch(
            input_ids=permutation(tokens, seed=number, stream=2) % 300,
            positions=np.concatenate([np.arange(length) for length in lengths]),
            segments=np.zeros(tokens, dtype=np.int64),
            cu_seqlens=np.concatenate(([0], np.cumsum(lengths))),
            labels=np.where(labels < 0, -100, labels),
        )
        train_step(model, [batch], optimizer, schedule=schedule)
    yield from model.state_dict().values()


def blas_matmul() -> Iterator[np.ndarray]:
    yield ops.matmul(Tensor(normal(0, 129, 511)), Tensor(normal(1, 511, 257))).numpy()


THROUGH_THE_BLAS = (blas_matmul,)
PROMISED = (
    *(masks, data_order, initial_weights, layer_norm, softmax, cross_entropy, gelu, embedding, adamw),
    *(matmul, linear, attention, training),
)


def digest(arrays: Callable[[], Iterator[np.ndarray]]) -> str:
    result = hashlib.sha256()
    for array in arrays():
        result.update(f"{array.dtype} {array.shape}".encode())
        result.update(np.ascontiguousarray(array).tobytes())
    return result.hexdigest()[:16]


def test_threads_and_surroundings_change_no_bit(tmp_path: Path) -> None:
    surroundings = (
        {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C"},
        {"PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8"},
        {"PYTHONHASHSEED": "4294967295", "TZ": "America/St_Johns", "LC_ALL": "tr_TR.UTF-8"},
        {"PYTHONHASHSEED": "random", "TZ": "Pacific/Chatham", "LC_ALL": "de_DE.ISO-8859-1"},
    )
    reports = []
    for number, environment in enumerate(surroundings, start=1):
        threads = {f"{library}_NUM_THREADS": str(number) for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
        folder = tmp_path / f"folder {number} é"
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-P", str(Path(__file__).resolve())],
            env=os.environ | threads | environment,
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr
        reports.append(json.loads(done.stdout))
    for what in THROUGH_THE_BLAS:
        hashes = [report.pop(what.__name__) for report in reports]
        print(f"{what.__name__}: {len(set(hashes))} different results of 1, 2, 3, 4 threads: {hashes}")
    assert reports[0].keys() == {what.__name__ for what in PROMISED}
    for name, hashed in reports[0].items():
        assert [report[name] for report in reports] == [hashed] * 4, name


if __name__ == "__main__":
    print(json.dumps({what.__name__: digest(what) for what in (*THROUGH_THE_BLAS, *PROMISED)}))
