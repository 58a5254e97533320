"""Random graphs through the tape: diamonds, reuse, dead ends, 30 operations and more, against finite differences.

Single operations are checked elsewhere; here it matters that every path from the leaves to the results is walked once,
in the right order, and that gradients add up wherever a value is used again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitl import Function, Tensor, ops, testing
from minitl.random import Generator

GRAPHS = min(20 * settings.default.max_examples, 5000)  # 2,000, in the long profile of conftest.py 5,000
PARTS = 4  # so that several workers share them
LARGEST = 10  # steps, of one to five operations each
Step = tuple[str, int, int]  # the operation, and which earlier nodes it takes, counted back from the last

ONES, ZEROS = Tensor(np.ones(3)), Tensor(np.zeros(3))
CHOICE = np.array([[True, False, False], [False, True, True]])


def full(x: Tensor) -> Tensor:
    """Every node is (2, 3), or a shape that broadcasts to it."""
    return ops.broadcast_to(x, (2, 3))


# Smooth everywhere, and tame: neither values nor higher derivatives may grow from step to step, or a finite difference
# with step 1e-3 would not be right to 1e-8.
UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "negative": lambda x: -x,
    "tanh": ops.tanh,
    "erf": lambda x: ops.erf(x * 0.5),
    "sqrt": lambda x: ops.sqrt(x * x * 0.5 + 1.5),
    "log": lambda x: ops.log(1.5 + x * x),
    "power": lambda x: (1.5 + x * x) ** -0.5,
    "exp": lambda x: ops.exp(ops.tanh(x)) * 0.5,
    "sum": lambda x: full(x).sum(axis=0) * 0.5,
    "mean": lambda x: full(x).mean(axis=1, keepdims=True),
    "mean of all": lambda x: x.mean(),
    "softmax": lambda x: ops.softmax(full(x), CHOICE | CHOICE[::-1]),
    "gelu": lambda x: ops.gelu(full(x)),
    "layer_norm": lambda x: ops.layer_norm(full(x), ONES, ZEROS, eps=1.0),
    "dropout": lambda x: ops.dropout(x, 0.3, generator=Generator(5)),
    "backwards": lambda x: full(x)[::-1, ::-1],
    "a row twice": lambda x: full(x)[[1, 1]],
    "transpose": lambda x: full(x).T.reshape(2, 3),
    "scatter_rows": lambda x: ops.scatter_rows(full(x), np.array([1, 0]), 2),
    "cross_entropy": lambda x: ops.cross_entropy(full(x), np.array([2, 0])),
    "focal_loss": lambda x: ops.focal_loss(full(x), np.array([2, 0]), gamma=2.0),
    "detach": lambda x: x.detach() * 0.0 + x,
}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: (a + b) * 0.7,
    "subtract": lambda a, b: (a - b) * 0.7,
    "multiply": lambda a, b: ops.tanh(a) * b,
    "divide": lambda a, b: a / (1.5 + b * b),
    "where": lambda a, b: ops.where(CHOICE, a, b),
    "matmul": lambda a, b: ops.tanh(full(a) @ full(b).T * 0.3)[:, :1],
    "linear": lambda a, b: ops.tanh(ops.linear(full(a), full(b)) * 0.3)[:, 1:],
    "concatenate": lambda a, b: ops.concatenate([full(a), full(b)])[1:3],
    "stack": lambda a, b: ops.stack([full(a), full(b)]).mean(axis=0),
    "attention": lambda a, b: ops.attention(full(a), full(b), full(a), np.array([0, 2]), heads=1),
    "embedding": lambda a, b: ops.embedding_sum(
        [full(a), full(b)], [np.array([1, 1]), np.array([0, 1])], padding_ids=[None, None]
    ),
}


def graph(x: Tensor, steps: list[Step]) -> Tensor:
    """Run the steps on four leaves cut from ``x`` (12,); return a weighted sum of all nodes that no step has used."""
    nodes = [x[:6].reshape(2, 3), x[6:9], x[9:11].reshape(2, 1), x[11]]
    used = set()
    for name, back, back_too in steps:
        first, second = len(nodes) - 1 - back % len(nodes), len(nodes) - 1 - back_too % len(nodes)
        if name in UNARY:
            used.add(first)
            nodes.append(UNARY[name](nodes[first]))
        else:
            used |= {first, second}
            nodes.append(BINARY[name](nodes[first], nodes[second]))
    ends = [node for number, node in enumerate(nodes) if number not in used]
    return sum((end.mean() * (1 + 0.1 * number) for number, end in enumerate(ends)), start=ops.mean(x))


def steps() -> st.SearchStrategy[list[Step]]:
    back = st.integers(0, LARGEST)
    step = st.tuples(st.sampled_from([*UNARY, *BINARY]), back, back)
    return st.integers(1, LARGEST).flatmap(lambda count: st.lists(step, min_size=count, max_size=count))


def point(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.5, 1.5, 12)


@pytest.mark.parametrize("part", range(PARTS))
def test_random_graphs(part: int) -> None:
    sizes = []

    def right(steps: list[Step], seed: int) -> None:
        sizes.append(len(steps))
        testing.check_gradients(lambda x: graph(x, steps), point(seed), directions=3, seed=seed)

    right.__name__ += str(part)  # a derandomised test draws by its name
    drawn = given(steps=steps(), seed=st.integers(0, 2**32 - 1))(right)
    settings(max_examples=GRAPHS // PARTS)(drawn)()
    assert len(sizes) >= GRAPHS // PARTS
    assert max(sizes) == LARGEST
    assert np.mean(sizes) >= LARGEST / 3


def functions_behind(result: Tensor) -> set[Function]:
    found: set[Function] = set()
    waiting = [result.creator]
    while waiting:
        function = waiting.pop()
        if function is not None and function not in found:
            found.add(function)
            waiting += [edge.target for edge in function.edges if edge and isinstance(edge.target, Function)]
    return found


def test_the_graphs_are_large_and_use_nodes_again() -> None:
    random = np.random.default_rng(0)
    sizes, shared = [], 0
    for _ in range(20):
        drawn = [
            (str(random.choice([*UNARY, *BINARY])), int(random.integers(20)), int(random.integers(20)))
            for _ in range(LARGEST)
        ]
        functions = functions_behind(graph(Tensor(point(0), requires_grad=True), drawn))
        targets = [edge.target for function in functions for edge in function.edges if edge]
        sizes.append(len(functions))
        shared += len(targets) - len(set(targets))
    assert max(sizes) >= 45
    assert np.median(sizes) >= 30
    assert shared >= 20 * 10, "most graphs have many nodes with several uses"


def test_every_step_is_right_alone() -> None:
    """So that a failing graph is never the fault of a step that cannot be differentiated here."""
    for name in (*UNARY, *BINARY):
        testing.check_gradients(lambda x, name=name: graph(x, [(name, 0, 3)]), point(1))
