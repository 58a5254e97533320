"""A training step of BERT-base on a GPU: one program, one process; ``gpu.py`` starts it and says what for.

python benchmarks/gpu_step.py minitl|eager|compile|max-autotune dense|natural SECONDS

Prints a line of JSON: milliseconds of the median step, and how long the first took. All programs keep float32
parameters and compute in bfloat16 (torch: autocast), with dropout 0.1, clipping to 1 and AdamW (torch: fused, and its
attention by scaled_dot_product_attention). The same batches for all: ids and labels are random, the lengths those of
CoNLL-2003 where they are natural, sentences of similar length together. minitl packs them, torch pads them.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from harness import batches

LAYERS, HIDDEN, HEADS, MIDDLE, VOCABULARY, LABELS = 12, 768, 12, 3072, 28996, 9
CHUNK = 8  # steps that are timed together; a GPU works behind the host's back


def workload(name: str) -> batches.Workload:
    return batches.dense(32, 128, 2) if name == "dense" else batches.natural("conll2003", 32, 4)


def minitl_step(work: batches.Workload) -> tuple[list[Any], Callable[[Any], Any], Callable[[], None], Any]:
    import cupy

    import minitl
    from minitl import optim
    from minitl.models import BertConfig, BertForTokenClassification, PackedBatch
    from minitl.training.graph import GraphedStep

    minitl.manual_seed(0)
    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    config = BertConfig(vocab_size=VOCABULARY, intermediate_size=MIDDLE, num_labels=LABELS, **sizes)
    model = BertForTokenClassification(config).to("cuda")
    model.train()
    step = GraphedStep(model, optim.AdamW(optim.decay_groups(model, weight_decay=0.01), lr=2e-5))
    loaded = []
    for seed, lengths in enumerate(work.grouped):
        ids, labels = batches.draw(lengths, work.scored_share, VOCABULARY, LABELS, seed)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.arange(len(ids)) - np.repeat(offsets[:-1], lengths)
        loaded.append(PackedBatch(ids, positions, np.zeros(len(ids), np.int64), offsets, labels))

    def step_in_bfloat16(batch: Any) -> None:
        with minitl.precision("bfloat16", device="cuda"):
            step(batch)

    def finish() -> None:
        step.finish()
        cupy.cuda.runtime.deviceSynchronize()
        if step.eager_because:
            raise RuntimeError(step.eager_because)

    return loaded, step_in_bfloat16, finish, cupy.cuda.runtime.memGetInfo


def torch_step(work: batches.Workload, how: str) -> tuple[list[Any], Callable[[Any], Any], Callable[[], None], Any]:
    import torch
    from transformers import BertConfig, BertForTokenClassification

    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    config = BertConfig(vocab_size=VOCABULARY, intermediate_size=MIDDLE, num_labels=LABELS, **sizes)
    model = BertForTokenClassification._from_config(config, attn_implementation="sdpa").cuda().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.01, fused=True)

    def loss_of(**inputs: Any) -> Any:
        with torch.autocast("cuda", torch.bfloat16):
            return model(**inputs).loss

    dense = len({length for lengths in work.grouped for length in lengths}) == 1
    if how == "compile":
        loss_of = torch.compile(loss_of, dynamic=not dense)
    elif how == "max-autotune":
        loss_of = torch.compile(loss_of, mode="max-autotune", dynamic=not dense)
    loaded = []
    for seed, lengths in enumerate(work.grouped):
        ids, labels = batches.draw(lengths, work.scored_share, VOCABULARY, LABELS, seed)
        arrays = {"input_ids": batches.pad(ids, lengths, 0), "labels": batches.pad(labels, lengths, batches.IGNORED)}
        if not dense:
            arrays["attention_mask"] = batches.padding_mask(lengths).astype(np.int64)
        loaded.append({name: torch.from_numpy(array).cuda() for name, array in arrays.items()})

    def step(inputs: Any) -> None:
        if how == "max-autotune":
            torch.compiler.cudagraph_mark_step_begin()
        loss_of(**inputs).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return loaded, step, torch.cuda.synchronize, torch.cuda.mem_get_info


def main() -> None:
    program, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    begin = time.perf_counter()
    work = workload(name)
    loaded, step, finish, memory = minitl_step(work) if program == "minitl" else torch_step(work, program)
    for batch in loaded * 3:
        step(batch)
    finish()
    first = time.perf_counter() - begin
    times: list[float] = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(times) < 5:
        start = time.perf_counter()
        for number in range(CHUNK):
            step(loaded[number % len(loaded)])
        finish()
        times.append((time.perf_counter() - start) / CHUNK * 1e3)
    free, total = memory()
    print(
        json.dumps(
            {
                "program": program,
                "batch": name,
                "tokens": work.tokens("grouped") / len(loaded),
                "ms": round(statistics.median(times), 3),
                "fastest": round(min(times), 3),
                "slowest": round(max(times), 3),
                "prepared_s": round(first, 1),
                "memory_gb": round((total - free) / 1e9, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
