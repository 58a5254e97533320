"""Self-attention compiled: one task for every head of every sentence, which shares nothing with the others.

A task (``head.py``) computes scores, softmax, dropout and products of its own rows, in memory that the tasks of a chunk
use one after the other: 40 kB for 20 tokens, 1 MB for the backward pass of 512. Of the large arrays each task reads and
writes its own part, and there are no others.

The work of a task grows with the square of its sentence's length. So the tasks, in order, are cut into 64 chunks of
nearly equal work, and the threads take equally many of them. Each task writes what only it writes, so no bit depends
on where the cuts are.

The loop over the chunks calls a task by the address of its machine code. Called by name it would be compiled into the
loop, and there optimised three times more, which took 6 seconds; now it is one.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from minitl.kernels.attention.head import backward_head, backward_room, forward_head, forward_room, padded
from minitl.kernels.attention.operands import BLOCK, LANES, zeros
from minitl.kernels.compiled import compiled, parallel
from minitl.kernels.launch import Array, check_dropout, check_floats, check_heads, check_offsets, check_shapes

CHUNKS = 64
#: A task's work is length * (length + OVERHEAD): what it does for each key takes as long as so many scores.
OVERHEAD = 32
FEW_PRODUCTS = 2**18  # multiplications of one product of all heads that one thread does before others have started

_addresses: dict[Any, int] = {}


def forward(
    q: Array,
    k: Array,
    v: Array,
    cu_seqlens: np.ndarray,
    *,
    heads: int,
    scale: float,
    dropout: float = 0.0,
    seed: int = 0,
    call: int = 0,
) -> tuple[Array, Array]:
    check_floats(q=q, k=k, v=v)
    check_shapes(q=(q, "T D"), k=(k, "T D"), v=(v, "T D"))
    check_heads(heads, columns=q.shape[1])
    check_offsets(cu_seqlens, rows=q.shape[0])
    check_dropout(dropout, seed=seed, call=call)
    context = np.empty_like(q)
    largest, total = np.empty((2, heads, q.shape[0]), q.dtype)
    options = _options(q.dtype, scale, dropout, seed, call)
    _run(forward_head, (q, k, v, context, largest, total), options, cu_seqlens, heads, forward_room)
    log_sum_exp = np.log(total, out=total)  # here, since NumPy takes 16 logarithms at once, and Numba one
    log_sum_exp += largest
    return context, log_sum_exp


def backward(
    grad_context: Array,
    q: Array,
    k: Array,
    v: Array,
    log_sum_exp: Array,
    cu_seqlens: np.ndarray,
    *,
    heads: int,
    scale: float,
    dropout: float = 0.0,
    seed: int = 0,
    call: int = 0,
) -> tuple[Array, Array, Array]:
    check_floats(grad_context=grad_context, q=q, k=k, v=v, log_sum_exp=log_sum_exp)
    check_shapes(grad_context=(grad_context, "T D"), q=(q, "T D"), k=(k, "T D"), v=(v, "T D"))
    check_heads(heads, columns=q.shape[1])
    check_shapes(H=heads, T=q.shape[0], log_sum_exp=(log_sum_exp, "H T"))
    check_offsets(cu_seqlens, rows=q.shape[0])
    check_dropout(dropout, seed=seed, call=call)
    grads = np.empty_like(q), np.empty_like(k), np.empty_like(v)
    options = _options(q.dtype, scale, dropout, seed, call)
    _run(backward_head, (grad_context, q, k, v, *grads, log_sum_exp), options, cu_seqlens, heads, backward_room)
    return grads


def _options(dtype: Any, scale: float, dropout: float, seed: int, call: int) -> tuple[Any, ...]:
    """Return scale, dropout's threshold and what it multiplies by, seed and call, in the types of the compiled code."""
    number = dtype.type
    threshold = np.uint32(math.floor(dropout * 2**32))
    return number(scale), threshold, number(1 / (1 - dropout)), np.uint64(seed), np.uint64(call)


def _run(task: Any, arrays: Any, options: Any, cu_seqlens: np.ndarray, heads: int, room: Any) -> None:
    """Run a task for every head of every sentence."""
    tokens, columns = arrays[0].shape
    if tokens == 0:
        return
    offsets = cu_seqlens.astype(np.int64)  # one type, so that one version is compiled
    work = _address_of(task, arrays, options), arrays, options, offsets, heads, *room(columns // heads)
    if tokens * tokens * columns <= FEW_PRODUCTS * (offsets.size - 1):
        _run_chunk(*work, 0, heads * (offsets.size - 1))
    else:
        _run_chunks(*work, _cut(offsets, heads))


def _address_of(task: Any, arrays: Any, options: Any) -> int:
    """Return where the machine code of a task begins; compile it, if it has not been for this dtype."""
    dtype = arrays[0].dtype
    address = _addresses.get((task, dtype))
    if address is None:
        where = 0, 0, 0, np.uint64(0)
        memory = np.empty(0, dtype), np.empty(0, np.uint32)
        kinds = tuple(numba.typeof(argument) for argument in (arrays, options, where, *memory))
        task.compile(kinds)
        code = task.overloads[kinds]
        address = _addresses[task, dtype] = code.library.get_pointer_to_function(code.fndesc.llvm_func_name)
    return address


@intrinsic
def _call(typing, address, arguments):  # type: ignore[no-untyped-def]
    """Call the compiled function at an address; a tuple of its arguments, of exactly its types."""
    kinds = tuple(types.unliteral(kind) for kind in arguments.types)

    def code(context, builder, signature, values):  # type: ignore[no-untyped-def]
        address, packed = values
        kind = context.call_conv.get_function_type(types.none, kinds)
        function = builder.inttoptr(address, kind.as_pointer())
        context.call_conv.call_function(builder, function, types.none, kinds, cgutils.unpack_tuple(builder, packed))
        return context.get_dummy_value()

    return types.void(types.intp, arguments), code


@compiled
def _cut(offsets: Any, heads: Any) -> Any:
    """Return (chunks + 1,): chunk ``i`` is tasks ``ends[i]`` to ``ends[i + 1] - 1``."""
    tasks = heads * (offsets.size - 1)
    chunks = min(tasks, CHUNKS)
    ends = np.zeros(chunks + 1, np.int64)
    all_work = 0
    for b in range(offsets.size - 1):
        length = offsets[b + 1] - offsets[b]
        all_work += heads * length * (length + OVERHEAD)
    done, chunk = 0, 1
    for task in range(tasks):
        length = offsets[task // heads + 1] - offsets[task // heads]
        done += length * (length + OVERHEAD)
        while chunk <= chunks and done * chunks >= all_work * chunk:
            ends[chunk] = task + 1
            chunk += 1
    return ends


@compiled
def _run_chunk(
    address: Any,
    arrays: Any,
    options: Any,
    offsets: Any,
    heads: Any,
    for_each_key: Any,
    beside: Any,
    begin: Any,
    end: Any,
) -> None:
    """Run tasks ``begin`` to ``end - 1``; task ``b * heads + h`` is head ``h`` of sentence ``b``."""
    longest, first = 0, 0  # first: number of a task's first dropout element
    for b in range((end + heads - 1) // heads):
        length = offsets[b + 1] - offsets[b]
        first += length * length * min(heads, max(begin - b * heads, 0))
        longest = max(longest, length) if (b + 1) * heads > begin else 0
    memory = zeros(padded(longest) * for_each_key + beside, arrays[0])
    random = zeros(2 * BLOCK * padded(longest) + LANES, np.empty(0, np.uint32))
    for task in range(begin, end):
        b = task // heads
        length = offsets[b + 1] - offsets[b]
        _call(address, (arrays, options, (offsets[b], length, task % heads, np.uint64(first)), memory, random))
        first += length * length


@parallel
def _run_chunks(
    address: Any, arrays: Any, options: Any, offsets: Any, heads: Any, for_each_key: Any, beside: Any, ends: Any
) -> None:
    for chunk in prange(ends.size - 1):
        if ends[chunk] < ends[chunk + 1]:  # a task may be more work than a chunk
            begin, end = ends[chunk], ends[chunk + 1]
            _run_chunk(address, arrays, options, offsets, heads, for_each_key, beside, begin, end)
