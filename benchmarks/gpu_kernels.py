"""Every kernel of a training step alone, on a GPU: the right masks, the same bits every time, and how fast.

python benchmarks/gpu_kernels.py ours     minitl's kernels
python benchmarks/gpu_kernels.py torch    the peers of some, in a process of their own

Each prints a line of JSON. Times are a CUDA graph's, of some hundred launches on changing arguments, which together are
larger than the GPU's cache: from memory, and without the host. The sizes are BERT-base's, 32 sentences of 128 tokens.
"""

import json
import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

TOKENS, HIDDEN, MIDDLE, HEADS, LENGTH, VOCABULARY = 4096, 768, 3072, 12, 128, 28996
PARAMETERS = 107_726_601 // 8 * 8
COLD = 400_000_000  # bytes of arguments that are gone through before any is met again
GRAPHS = 9  # timings, of which the median counts
REPEATS = 1000
MASK = 100_000_000


def ours() -> dict[str, Any]:
    import cupy

    from minitl.kernels.launch import bfloat16

    pool = cupy.cuda.MemoryPool()
    bf16 = bfloat16()

    def normal(*shape: int, dtype: Any = bf16, seed: int = 0) -> Any:
        return cupy.random.default_rng(seed).standard_normal(shape, dtype=np.float32).astype(dtype)

    def microseconds(prepare: Callable[[], tuple[Any, ...]], call: Callable[..., Any], rounds: int = 1) -> float:
        sets = [prepare()]
        size = sum(array.nbytes for array in sets[0])
        sets += [prepare() for _ in range(max(1, COLD // size))]
        call(*sets[0])  # compiles
        launches = len(sets) * rounds
        stream = cupy.cuda.Stream(non_blocking=True)
        with cupy.cuda.using_allocator(pool.malloc), stream:
            stream.begin_capture()
            for _ in range(rounds):
                for arguments in sets:
                    call(*arguments)
            graph = stream.end_capture()
        times = []
        for _ in range(GRAPHS + 1):
            start, end = cupy.cuda.Event(), cupy.cuda.Event()
            start.record()
            graph.launch()
            end.record()
            end.synchronize()
            times.append(cupy.cuda.get_elapsed_time(start, end) * 1e3 / launches)
        pool.free_all_blocks()
        return statistics.median(times[1:])

    cases = kernel_cases(cupy, normal)
    found: dict[str, Any] = {"microseconds": {}, "repeats": {}}
    for name, (prepare, call, _) in cases.items():
        found["microseconds"][name] = round(microseconds(prepare, call), 2)
    for name, (prepare, call, in_place) in cases.items():
        found["repeats"][name] = different_bits(cupy, prepare, call, in_place)
    found["masks"] = masks(cupy)
    return found


def kernel_cases(cupy: Any, normal: Any) -> dict[str, tuple[Any, Any, bool]]:
    """For each kernel: a function that makes its arguments, how it is called, and whether it changes its arguments."""
    from minitl.kernels.adamw import Segment
    from minitl.kernels.adamw import cuda as adamw
    from minitl.kernels.adamw.table import SHADOW, chunks, options_of
    from minitl.kernels.attention import cuda as attention
    from minitl.kernels.attention.layout import Layout
    from minitl.kernels.cross_entropy import cuda as cross_entropy
    from minitl.kernels.dropout import cuda as dropout
    from minitl.kernels.embedding import cuda as embedding
    from minitl.kernels.gelu import cuda as gelu
    from minitl.kernels.launch import bfloat16
    from minitl.kernels.layer_norm import cuda as layer_norm
    from minitl.kernels.matmul import cuda as matmul
    from minitl.kernels.softmax import cuda as softmax

    drop = {"dropout": 0.1, "seed": 3, "call": 5}
    x, middle = (TOKENS, HIDDEN), (TOKENS, MIDDLE)
    weight, bias = normal(HIDDEN, dtype=np.float32), normal(HIDDEN, dtype=np.float32, seed=1)
    wide_bias = normal(MIDDLE, dtype=np.float32)
    layout = Layout.of(np.arange(0, TOKENS + 1, LENGTH), cupy)
    heads = {"heads": HEADS, "scale": 0.125, **drop}
    ids = cupy.asarray(np.random.default_rng(0).integers(0, VOCABULARY, TOKENS))
    labels = cupy.asarray(np.random.default_rng(0).integers(0, 9, TOKENS))
    places = cupy.asarray(np.tile(np.arange(LENGTH), TOKENS // LENGTH))
    tables = [normal(rows, HIDDEN, dtype=np.float32) for rows in (VOCABULARY, 512, 2)]
    numbers = [ids, places, cupy.zeros(TOKENS, np.int64)]
    no_label = {"ignore_index": -100, "label_smoothing": 0.0}

    def normalised() -> tuple[Any, ...]:
        _, total, mean, rstd = layer_norm.forward(normal(*x), normal(*x, seed=1), weight, bias, eps=1e-12, **drop)
        return normal(*x, seed=2), total, mean, rstd

    def attended() -> tuple[Any, ...]:
        joined = normal(TOKENS, 3 * HIDDEN)
        return normal(*x, seed=1), *attention.forward_joined(joined, layout, **heads), joined

    segment = Segment(0, PARAMETERS, 1e-4, 0.01, 3)
    table = chunks([segment], [None])
    table[:, SHADOW] = 1
    lines, rates = cupy.asarray(table), {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "torch_compat": False}
    options = cupy.asarray(options_of([segment], **rates, dtype=np.dtype(np.float32)))
    shadow = cupy.empty(PARAMETERS, bfloat16())

    def clip_and_update(*buffers: Any) -> Any:
        _, clip = adamw.clip_lines(buffers[1], lines, max_norm=1.0)
        adamw.update_lines(buffers, lines, options, torch_compat=False, shadow=shadow, clip=clip)
        return buffers

    def buffers() -> tuple[Any, ...]:
        made = [normal(PARAMETERS, dtype=np.float32, seed=seed) for seed in range(4)]
        return *made[:3], abs(made[3])

    def embedding_gradient(grad: Any, out: Any) -> Any:
        out[...] = 0
        return embedding.backward(grad, ids, out=out)

    logits = normal(TOKENS, 9, dtype=np.float32)
    scores = (HEADS * LENGTH * 8, LENGTH)
    return {
        "layer_norm forward": (
            lambda: (normal(*x), normal(*x, seed=1)),
            lambda a, b: layer_norm.forward(a, b, weight, bias, eps=1e-12, **drop),
            False,
        ),
        "layer_norm backward": (
            normalised,
            lambda grad, total, mean, rstd: layer_norm.backward(grad, total, weight, mean, rstd, **drop),
            False,
        ),
        "gelu forward": (lambda: (normal(*middle),), lambda a: gelu.forward(a, wide_bias, approximate="none"), False),
        "gelu backward": (
            lambda: (normal(*middle), normal(*middle, seed=1)),
            lambda grad, a: gelu.backward(grad, a, wide_bias, approximate="none"),
            False,
        ),
        "attention forward": (
            lambda: (normal(TOKENS, 3 * HIDDEN),),
            lambda joined: attention.forward_joined(joined, layout, **heads),
            False,
        ),
        "attention backward": (
            attended,
            lambda grad, context, lse, joined: attention.backward_joined(grad, context, joined, lse, layout, **heads),
            False,
        ),
        "embedding forward": (
            lambda: (numbers[0],),
            lambda _: embedding.forward_rounded(tables, numbers, dtype=bfloat16()),
            False,
        ),
        "embedding backward": (
            lambda: (normal(*x), cupy.zeros((VOCABULARY, HIDDEN), np.float32)),
            lambda grad, out: embedding.backward(grad, ids, out=out),
            True,
        ),
        "column sums": (lambda: (normal(*middle),), matmul.column_sums, False),
        "dropout": (
            lambda: (normal(*x),),
            lambda a: dropout.forward(a, probability=0.1, seed=3, call=5),
            False,
        ),
        "softmax forward, float32": (
            lambda: (normal(*scores, dtype=np.float32),),
            lambda a: softmax.forward(a, None, scale=0.125, **drop),
            False,
        ),
        "cross_entropy forward, float32": (
            lambda: (logits.copy(),),
            lambda a: cross_entropy.forward(a, labels, None, **no_label),
            False,
        ),
        "product 4096 x 768 x 3072": (
            lambda: (normal(*x), normal(MIDDLE, HIDDEN, seed=1)),
            lambda a, b: matmul.matmul(a, b, transpose_b=True),
            False,
        ),
        "adamw and clipping, float32": (buffers, clip_and_update, True),
    }


def different_bits(cupy: Any, prepare: Any, call: Any, in_place: bool) -> int:
    """Return how many of 1,000 repeats of a call differ in a bit from the first."""

    def results(arguments: tuple[Any, ...]) -> list[Any]:
        used = tuple(array.copy() for array in arguments) if in_place else arguments
        returned = call(*used)
        arrays = list(returned) if isinstance(returned, tuple) else [returned]
        return [array.reshape(-1).view(np.uint8).copy() for array in arrays if hasattr(array, "view")]

    arguments = prepare()
    repeats = REPEATS if sum(array.nbytes for array in arguments) < 1e9 else REPEATS // 10
    wanted = results(arguments)
    apart = cupy.zeros((), np.int64)
    for _ in range(repeats):
        differs = cupy.zeros((), bool)
        for one, other in zip(results(arguments), wanted, strict=True):
            differs |= (one != other).any()
        apart += differs
    return int(apart)


def masks(cupy: Any) -> dict[str, int]:
    """Return how many of 10^8 elements the CPU drops, and how many the GPU treats otherwise: the mask, and a kernel."""
    from minitl.kernels.dropout import cpu, cuda
    from minitl.kernels.launch import bfloat16

    options = {"probability": 0.1, "seed": 2**40 + 3, "call": 2**33 + 5}
    on_gpu = cuda.keep_mask((MASK,), **options, xp=cupy).get()
    on_cpu = cpu.keep_mask((MASK,), **options, xp=np)
    different = np.count_nonzero(on_gpu != on_cpu)
    kept = cuda.forward(cupy.ones((MASK // 1000, 1000), bfloat16()), **options)
    different += np.count_nonzero((kept != 0).get().reshape(-1) != on_cpu)
    return {
        "elements": MASK,
        "dropped": int(MASK - np.count_nonzero(on_cpu)),
        "different": int(different),
    }


def torch_kernels() -> dict[str, Any]:
    import torch
    from torch.nn import functional

    def normal(*shape: int, dtype: Any = torch.bfloat16) -> Any:
        return torch.randn(*shape, device="cuda", dtype=torch.float32).to(dtype)

    def microseconds(prepare: Callable[[], tuple[Any, ...]], call: Callable[..., Any]) -> float:
        sets = [prepare()]
        size = sum(array.nbytes for array in sets[0])
        sets += [prepare() for _ in range(max(1, COLD // size))]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for arguments in sets[:2]:
                call(*arguments)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for arguments in sets:
                call(*arguments)
        times = []
        for _ in range(GRAPHS + 1):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) * 1e3 / len(sets))
        return statistics.median(times[1:])

    def attend(q: Any, k: Any, v: Any) -> Any:
        return functional.scaled_dot_product_attention(q, k, v, dropout_p=0.1)

    def heads() -> tuple[Any, ...]:
        joined = normal(TOKENS // LENGTH, LENGTH, 3, HEADS, HIDDEN // HEADS)
        return tuple(joined[:, :, part].transpose(1, 2).detach().requires_grad_() for part in range(3))

    def both(q: Any, k: Any, v: Any, grad: Any) -> Any:
        return torch.autograd.grad(attend(q, k, v), (q, k, v), grad)

    weight, bias = normal(HIDDEN, dtype=torch.float32), normal(HIDDEN, dtype=torch.float32)
    forward = microseconds(heads, attend)
    shape = TOKENS // LENGTH, HEADS, LENGTH, HIDDEN // HEADS
    together = microseconds(lambda: (*heads(), normal(*shape)), both)

    def normalise(x: Any, residual: Any) -> Any:
        total = functional.dropout(x, 0.1) + residual
        return functional.layer_norm(total, (HIDDEN,), weight.bfloat16(), bias.bfloat16(), 1e-12)

    return {
        "microseconds": {
            "attention forward": round(forward, 2),
            "attention backward": round(together - forward, 2),
            "layer_norm forward": round(
                microseconds(lambda: (normal(TOKENS, HIDDEN), normal(TOKENS, HIDDEN)), normalise), 2
            ),
            "gelu forward": round(microseconds(lambda: (normal(TOKENS, MIDDLE),), functional.gelu), 2),
            "product 4096 x 768 x 3072": round(
                microseconds(lambda: (normal(TOKENS, HIDDEN), normal(MIDDLE, HIDDEN)), functional.linear), 2
            ),
        }
    }


if __name__ == "__main__":
    print(json.dumps(ours() if sys.argv[1] == "ours" else torch_kernels()))
