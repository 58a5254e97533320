"""The bytes that each CUDA kernel must move between memory and multiprocessors: every argument once.

A kernel whose arithmetic is light cannot be faster than this many bytes at the memory's bandwidth; one that takes much
longer reads something twice. Tests ask for a line for every kernel; ``.ci/check_cuda.py`` prints the table, and
``benchmarks/gpu_kernels.py`` compares with it what a GPU measures.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

#: What the letters stand for, and how large they are in BERT-base with 32 sentences of 128 tokens, 9 labels.
SIZES = {
    "N": ("tokens", 4096),
    "D": ("columns", 768),
    "F": ("columns of the middle layer", 3072),
    "H": ("heads", 12),
    "V": ("rows of a table", 28996),
    "L": ("labels", 9),
    "S": ("keys of a query", 128),
    "P": ("parameters", 107_726_601),
    "C": ("chunks of 64 rows", 64),
    "B": ("blocks of 16 rows", 256),
    "K": ("chunks of parameters", 26_302),
}


class Traffic(NamedTuple):
    """What a kernel reads and writes: arrays with their sizes, as in "x N D, mean* N".

    An array is of the kernel's type; with ``*`` of the type of its sums (float32 where the kernel's has 16 bits), with
    ``#`` of 8 bytes.
    """

    reads: str
    writes: str


TRAFFIC = {
    "adamw_update": Traffic("parameters P, gradients P, moments 2 P", "parameters P, moments 2 P"),
    "sum_of_squares": Traffic("gradients P", "sums# K"),
    "clip_factor": Traffic("sums# K", "norm# 1, factor 1"),
    "attention_forward": Traffic("q N D, k N D, v N D", "context N D, log_sum_exp* H N"),
    "attention_backward": Traffic(
        "grad_context N D, context N D, q N D, k N D, v N D, log_sum_exp* H N", "grad_q N D, grad_k N D, grad_v N D"
    ),
    "attention_grad_queries": Traffic(
        "grad_context N D, q N D, k N D, v N D, log_sum_exp* H N", "grad_q N D, means* H N"
    ),
    "attention_grad_keys": Traffic(
        "grad_context N D, q N D, k N D, v N D, log_sum_exp* H N, means* H N", "grad_k N D, grad_v N D"
    ),
    "cross_entropy_rows": Traffic("logits N L, labels# N", "losses* N, log_sum_exp* N"),
    "cross_entropy_mean": Traffic("losses* N, labels# N", "loss* 1, total_weight* 1"),
    "cross_entropy_backward": Traffic("logits N L, labels# N, log_sum_exp* N", "grad_logits N L"),
    "drop": Traffic("x N D", "y N D"),
    "embedding_forward": Traffic("rows* 3 N D, indices# 3 N", "y N D"),
    "embedding_backward": Traffic("grad_y N D, index# N, grad_table* N D", "grad_table* N D"),
    "embedding_backward_few": Traffic("grad_y N D, index# N", "sums* 2 C D"),
    "gelu_forward": Traffic("x N F, bias* F", "y N F"),
    "gelu_forward_single": Traffic("x N F, bias* F", "y N F"),
    "gelu_backward": Traffic("grad_y N F, x N F, bias* F", "grad_x N F, sums* C F"),
    "gelu_backward_single": Traffic("grad_y N F, x N F, bias* F", "grad_x N F, sums* C F"),
    "layer_norm_forward": Traffic("x N D, residual N D, weight* D, bias* D", "y N D, total N D, mean* N, rstd* N"),
    "layer_norm_forward_long": Traffic("x N D, residual N D, weight* D, bias* D", "y N D, total N D, mean* N, rstd* N"),
    "layer_norm_backward": Traffic(
        "grad_y N D, total N D, weight* D, mean* N, rstd* N", "grad_x N D, grad_residual N D, sums* 2 B D"
    ),
    "layer_norm_backward_long": Traffic(
        "grad_y N D, total N D, weight* D, mean* N, rstd* N", "grad_x N D, grad_residual N D, offsets* N"
    ),
    "layer_norm_parameters": Traffic("grad_y N D, total N D, mean* N, rstd* N, offsets* N", "sums* 2 C D"),
    "matmul": Traffic("a N D, b F D", "c N F"),
    "column_sums": Traffic("x N D", "sums* C D"),
    "column_sums_single": Traffic("x N D", "sums* C D"),
    "sum_chunks": Traffic("sums C D", "sums D"),
    "philox_words": Traffic("", "words N D"),
    "philox_counters": Traffic("counters 4 N", "words 4 N"),
    "softmax_forward": Traffic("x N S, mask# 1", "y N S, probabilities N S"),
    "softmax_backward": Traffic("grad_y N S, probabilities N S", "grad_x N S"),
}

WIDTHS = {"float": 4, "double": 8, "__nv_bfloat16": 2, "__half": 2, "unsigned int": 4}


def bytes_moved(instantiation: str) -> int:
    """Return how many bytes an instantiation moves at the SIZES.

    >>> bytes_moved("drop<float>") == 2 * 4096 * 768 * 4
    True
    """
    name, kind = re.match(r"(\w+)<([^,>]*)", instantiation).groups()  # type: ignore[union-attr]
    width = WIDTHS[kind]
    total = 0
    for term in ", ".join(filter(None, TRAFFIC[name])).split(", "):
        array, *letters = term.split()
        each = 8 if array.endswith("#") else max(width, 4) if array.endswith("*") else width
        total += each * math.prod(SIZES[letter][1] if letter in SIZES else int(letter) for letter in letters)
    return total
