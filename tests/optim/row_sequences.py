"""Sequences of what a user may do with a table and its gradient, taken with and without knowledge of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from minitl import Tensor, ops, optim
from minitl.kernels.select import IMPLEMENTATIONS, use_kernels
from minitl.optim.gradient_slot import GradientSlot

ROWS, PADDING = 9, 2
OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "AdamW": lambda p: optim.AdamW(p, lr=0.1),
    "AdamW without decay": lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.0),
    "AdamW, beta1 = 0": lambda p: optim.AdamW(p, lr=0.1, betas=(0.0, 0.5)),
    "AdamW as torch": lambda p: optim.AdamW(p, lr=0.1, torch_compat=True),
    "AdamW as torch, without decay": lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.0, torch_compat=True),
    "AdamW as torch, beta1 = 0": lambda p: optim.AdamW(p, lr=0.1, betas=(0.0, 0.5), torch_compat=True),
    "AdamW at rate 0": lambda p: optim.AdamW(p, lr=0.0, weight_decay=0.1),
    "AdamW, eps = 0": lambda p: optim.AdamW(p, lr=0.1, eps=0.0),
    "AdamW, eps = 0 in float32": lambda p: optim.AdamW(p, lr=0.1, eps=1e-60),
    "AdamW as torch, eps = 0": lambda p: optim.AdamW(p, lr=0.1, eps=0.0, torch_compat=True),
    "SGD": lambda p: optim.SGD(p, lr=0.1, weight_decay=0.1),
    "SGD with momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
}


class Run:
    """A table, a bias beside it, and their optimizer; each method is something that a user may do.

    Some of the table's numbers are -0, infinite or NaN: what is skipped must leave them as the formula does.
    """

    def __init__(self, kind: str, dtype: str, columns: int = 3) -> None:
        start = np.random.default_rng(0).standard_normal((ROWS, columns)).astype(dtype)
        start[:, 0] = [0.0, -0.0, np.inf, -np.inf, np.nan, -0.0, 0.0, 1.0, -0.0]
        self.table = Tensor(start, requires_grad=True)
        self.bias = Tensor(np.zeros(columns, dtype), requires_grad=True)
        self.optimizer = OPTIMIZERS[kind]([self.table, self.bias])
        self.random = np.random.default_rng(1)
        self.seen: list[np.ndarray] = []

    def values(self, *shape: int) -> Tensor:
        return Tensor(np.asarray(self.random.standard_normal(shape)).astype(self.table.dtype))

    def embed(self, ids: list[int]) -> None:
        y = ops.embedding(self.table, np.array(ids, dtype=np.int64), padding_id=PADDING) + self.bias
        y.backward(self.values(*y.shape))

    def embed_at_once(self, ids: list[int]) -> None:
        both = [np.array(ids, dtype=np.int64), np.array(ids[::-1], dtype=np.int64)]
        y = ops.embedding_sum([self.table, self.table], both, padding_ids=[None, PADDING])
        y.backward(self.values(*y.shape))

    def use_as_matrix(self, ids: list[int]) -> None:
        y = ops.linear(self.values(2, self.table.shape[1]), self.table)
        y.backward(self.values(*y.shape))

    def use_as_a_value(self, ids: list[int]) -> None:
        (self.table * self.values(*self.table.shape)).backward(self.values(*self.table.shape))

    def zero_grad(self, ids: list[int]) -> None:
        self.optimizer.zero_grad()

    def step(self, ids: list[int]) -> None:
        self.optimizer.step()
        self.seen.append(self.table.numpy().copy())

    def clip(self, ids: list[int]) -> None:
        self.seen.append(np.array(optim.clip_grad_norm([self.table, self.bias], 0.5)))

    def clip_the_bias(self, ids: list[int]) -> None:
        self.seen.append(np.array(optim.clip_grad_norm([self.bias], 0.5)))

    def look(self, ids: list[int]) -> None:
        if self.table.grad is not None:
            self.seen.append(self.table.grad.numpy().copy())

    def look_after_clipping(self, ids: list[int]) -> None:
        """What was got before shows the clipped values."""
        before = self.table.grad
        self.clip(ids)
        if before is not None:
            self.seen.append(before.numpy().copy())

    def copy_into(self, ids: list[int]) -> None:
        if self.table.grad is not None:
            self.table.grad.copy_(self.values(*self.table.shape))

    def write_into_the_array(self, ids: list[int]) -> None:
        if self.table.grad is not None:
            self.table.grad.array[ids] += self.values(1).array

    def keep_and_copy_into(self, ids: list[int]) -> None:
        """A gradient that is kept beyond ``zero_grad`` is the same memory still."""
        kept = self.table.grad
        self.zero_grad(ids)
        self.embed(ids)
        if kept is not None:
            kept.copy_(self.values(*self.table.shape))

    def assign(self, ids: list[int]) -> None:
        self.table.grad = self.values(*self.table.shape)

    def assign_few(self, ids: list[int]) -> None:
        few = self.values(*self.table.shape)
        few.array[[row for row in range(ROWS) if row not in ids]] = -0.0
        self.table.grad = few

    def assign_none(self, ids: list[int]) -> None:
        self.table.grad = None

    def end(self) -> list[np.ndarray]:
        moments = [vars(self.optimizer).get(name) for name in ("_first_moment", "_second_moment", "_momentum")]
        gradients = [one.grad.numpy() for one in (self.table, self.bias) if one.grad is not None]
        return [*self.seen, self.bias.numpy(), *gradients, *(moment for moment in moments if moment is not None)]


METHODS = [name for name in vars(Run) if not name.startswith("_") and name not in ("values", "end")]
Actions = list[tuple[str, list[int]]]


@contextmanager
def dense() -> Iterator[None]:
    """Slots know nothing of their rows, and multiply at once."""

    def scale(self: GradientSlot, factor: float) -> None:
        self._array *= factor
        self.mark_written()

    nothing = property(lambda self: None)
    with mock.patch.object(GradientSlot, "touched", nothing), mock.patch.object(GradientSlot, "scale", scale):
        yield


def outcome(kind: str, dtype: str, actions: Actions, columns: int = 3) -> list[np.ndarray]:
    with np.errstate(all="ignore"):
        run = Run(kind, dtype, columns)
        for name, ids in actions:
            getattr(run, name)(ids)
        return run.end()


def assert_same_bits(kind: str, dtype: str, actions: Actions, columns: int = 3) -> None:
    with dense():
        wanted = outcome(kind, dtype, actions, columns)
    found = outcome(kind, dtype, actions, columns)
    assert len(found) == len(wanted) > 0
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        np.testing.assert_array_equal(one, other, f"{kind}, result {number} of {actions}")
        signs = [np.signbit(array[~np.isnan(array)]) for array in (one, other)]
        np.testing.assert_array_equal(*signs, f"{kind}, signs of result {number} of {actions}")


@contextmanager
def kernels(name: str) -> Iterator[None]:
    with mock.patch.dict(IMPLEMENTATIONS, {"cpu": name}), use_kernels("auto"):
        yield
