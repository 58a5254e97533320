"""A table's gradient has few rows: whatever is skipped because of that, no bit of the result may show it.

Every sequence of steps is taken twice, with what the slots know and without, and then gradients, moments, parameters
and norms are compared bit by bit. So is clipping, which leaves a factor in a slot or is done at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from row_sequences import METHODS, OPTIMIZERS, PADDING, ROWS, Actions, assert_same_bits, dense, kernels

import minitl
from minitl import Tensor, nn, ops, optim
from minitl.optim.gradient_slot import GradientSlot

#: What training does most, so that half of the sequences are made of it.
OFTEN = ["embed", "step", "zero_grad", "clip"]

with_all_kernels = pytest.mark.parametrize("name", ["reference", "cpu"])
ids = st.lists(st.integers(0, ROWS - 1), max_size=4)
sequences = st.lists(st.tuples(st.sampled_from(OFTEN) | st.sampled_from(METHODS), ids), min_size=1, max_size=12)


@with_all_kernels
@settings(max_examples=200)
@given(kind=st.sampled_from(list(OPTIMIZERS)), actions=sequences, dtype=st.sampled_from(["float32", "float64"]))
def test_any_sequence(name: str, kind: str, actions: Actions, dtype: str) -> None:
    with kernels(name):
        assert_same_bits(kind, dtype, actions)


@with_all_kernels
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_long_training(name: str, kind: str) -> None:
    """Rows of which the kernel's chunks begin and end inside, on several threads; an odd step out now and then."""
    random = np.random.default_rng(0)
    actions: Actions = []
    for number in range(20):
        some = random.integers(0, ROWS, 2).tolist()
        actions += [("embed", some), ("clip", []), ("step", []), ("look" if number % 5 == 4 else "zero_grad", [])]
        if number == 12:
            actions += [("zero_grad", []), ("use_as_matrix", []), ("step", []), ("zero_grad", [])]
    with kernels(name):
        assert_same_bits(kind, "float32", actions, columns=5003)


@with_all_kernels
@pytest.mark.parametrize("method", METHODS)
def test_everything_that_may_come_between(name: str, method: str) -> None:
    """After two steps with other rows, before the step and after it."""
    for between in (
        [("embed", [1]), (method, [3, 1]), ("clip", []), ("step", [])],
        [("embed", [1]), ("clip", []), (method, [3, 1]), ("step", [])],
        [("embed", [1]), ("step", []), (method, [3, 1]), ("step", [])],
        [(method, [3, 1]), ("embed", [1]), ("clip", []), ("step", [])],
    ):
        first: Actions = [("embed", [0, 5, 5]), ("step", []), ("zero_grad", [])]
        last: Actions = [("zero_grad", []), ("embed", [7, PADDING]), ("step", [])]
        for actions in (first + between + last, between + last):
            with kernels(name):
                assert_same_bits("AdamW", "float32", actions)


@with_all_kernels
def test_a_frozen_table(name: str) -> None:
    frozen = Tensor(np.ones((ROWS, 3)))
    trained = Tensor(np.ones((ROWS, 3)), requires_grad=True)
    optimizer = optim.AdamW([frozen, trained], lr=0.1)
    with kernels(name):
        ops.embedding_sum([frozen, trained], [np.array([1]), np.array([2])], padding_ids=[None, None]).sum().backward()
        optimizer.step()
    assert (frozen.numpy() == 1).all()
    assert (trained.numpy() != 1).any(axis=1).all()  # all decay
    assert trained.numpy()[2, 0] < 0.95 < trained.numpy()[1, 0]


@with_all_kernels
def test_tied_weights(name: str) -> None:
    """A table that scores words, too, has a gradient in every row; step by step as in a run without knowledge."""

    def train() -> np.ndarray:
        minitl.manual_seed(0)
        table, norm = nn.Embedding(ROWS, 4), nn.LayerNorm(4)
        optimizer = optim.AdamW([table.weight, *norm.parameters()], lr=0.1)
        for step in range(6):
            batch = np.array([step % 3, 8])
            hidden = norm(table(batch))
            logits = ops.linear(hidden, table.weight) if step in (0, 4) else hidden
            logits.backward(Tensor(np.random.default_rng(step).standard_normal(logits.shape).astype(np.float32)))
            optim.clip_grad_norm([table.weight], 0.3)
            optimizer.step()
            optimizer.zero_grad()
        return table.weight.numpy()

    with kernels(name):
        with dense():
            wanted = train()
        np.testing.assert_array_equal(train(), wanted)


# -- what is skipped, and that it would be noticed ---------------------------------------------------------------------


def test_rows_without_a_gradient_are_not_read() -> None:
    """NaN is put where nothing should look: in the gradient and the moments of a row that no id has named."""
    table = Tensor(np.ones((ROWS, 1000)), requires_grad=True)
    optimizer = optim.AdamW([table], lr=0.1)
    for buffer in (optimizer._first_moment, optimizer._second_moment, optimizer.buffer.gradients):
        buffer.reshape(table.shape)[5] = np.nan
    for step in range(3):
        with kernels("cpu"):
            ops.embedding(table, np.array([1, step])).sum().backward()
            assert np.isfinite(optim.clip_grad_norm([table], 1.0))
            optimizer.step()
        optimizer.zero_grad()
        assert np.isfinite(table.numpy()).all()
        assert np.isnan(optimizer.buffer.gradients.reshape(table.shape)[5]).all(), "nor made 0 again"
    assert table.numpy()[5, 0] == pytest.approx(0.999**3)  # three decays


def test_clipping_leaves_the_memory_alone() -> None:
    table = Tensor(np.ones((ROWS, 2)), requires_grad=True)
    optimizer = optim.AdamW([table])
    ops.embedding(table, np.array([1])).sum().backward()
    norm = optim.clip_grad_norm([table], 0.5)
    assert set(optimizer.buffer.gradients) == {0.0, 1.0}
    assert table.grad is not None
    assert table.grad.numpy()[1, 0] == 0.5 / (norm + 1e-6)
    assert table.grad.numpy()[1, 0] in optimizer.buffer.gradients


@pytest.mark.parametrize("forgotten", ["when it is written", "in the next step", "when it is made 0"])
def test_a_forgotten_row_is_found(forgotten: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the three places where rows are kept in mind loses row 1 once; the comparison sees it."""
    actions: Actions = [("embed", [1, 3]), ("step", []), ("zero_grad", []), ("embed", [4]), ("step", [])]
    with kernels("cpu"):
        assert_same_bits("AdamW", "float32", actions)
    mark, touch, start = GradientSlot.mark_written, optim.AdamW._touch, GradientSlot.start_rows

    def forgetful_mark(self: GradientSlot, touched: Any = None) -> None:
        if touched is not None:
            touched[1] = False
        mark(self, touched)

    def forgetful_touch(self: optim.AdamW, number: int) -> None:
        touch(self, number)
        if self._steps[number] == 2 and self._touched[number] is not None:
            self._touched[number][1] = False  # type: ignore[index]

    def forgetful_start(self: GradientSlot) -> Any:
        if self.touched is not None:
            self.touched[1] = False
        return start(self)

    if forgotten == "when it is written":
        monkeypatch.setattr(GradientSlot, "mark_written", forgetful_mark)
    elif forgotten == "in the next step":
        monkeypatch.setattr(optim.AdamW, "_touch", forgetful_touch)
    else:
        monkeypatch.setattr(GradientSlot, "start_rows", forgetful_start)
        actions = [*actions, ("look", [])]
    with kernels("cpu"), pytest.raises(AssertionError, match="result"):
        assert_same_bits("AdamW", "float32", actions)
