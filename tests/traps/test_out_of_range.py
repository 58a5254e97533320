"""Ids, labels, offsets and indices that are out of range: each is refused, named, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from trap_tools import Integers, random_batch, same_bits, tiny_tagger

from minitl import Tensor, no_grad, ops
from minitl.models import BertForTokenClassification
from minitl.random import default_generator
from minitl.text.batch import PackedBatch

DTYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FAR = (2**31, -(2**31), 2**62, -(2**62), 127, 255, 2**63 - 1)
COUNT = 9  # rows of every table, and classes


@pytest.fixture(params=["cpu", "strict"])
def device(request: pytest.FixtureRequest) -> str:
    """Every device that the tests have."""
    return str(request.getfixturevalue("strict_device")) if request.param == "strict" else "cpu"


def misplaced(
    random: np.random.Generator, right: Integers, count: int, lowest: int = 0, among: Integers | None = None
) -> tuple[int, int, Integers]:
    """Put a value that is no number in [lowest, count) at one place (of ``among``) of a right array.

    Returns:
        The value, its flat position, and the array in a random one of the dtypes that can hold all its values.
    """
    array = right.copy()
    while (array == right).all():  # the last of the offsets is ``count``
        value = int(random.choice((lowest - 1, count, count + 1, *FAR)))
        position = int(random.choice(right.size if among is None else among))
        array.reshape(-1)[position] = value
    limits = [(dtype, np.iinfo(dtype)) for dtype in DTYPES]
    fitting = [dtype for dtype, limit in limits if limit.min <= array.min() and array.max() <= limit.max]
    return value, position, array.astype(random.choice(fitting))


@dataclass(frozen=True)
class Target:
    """An operation's argument of integers.

    Attributes:
        right: what it is given rightly.
        call: computes something from it.
        names: what the error must contain, from the value and its place.
        lowest: the smallest value that is right; indices count from the end, too.
    """

    right: Integers
    call: Callable[[Any], Tensor]
    names: Callable[..., str]
    lowest: int = 0


def targets(device: str) -> dict[str, Target]:
    random = np.random.default_rng(0)

    def tensor(*shape: int) -> Tensor:
        return Tensor(random.standard_normal(shape), requires_grad=True, device=device)

    table, other, logits, x, rows = tensor(COUNT, 3), tensor(COUNT, 3), tensor(6, COUNT), tensor(COUNT, 4), tensor(5, 2)
    ids, pair = random.integers(0, COUNT, (2, 3)), random.integers(0, COUNT, 7)
    offsets, places = np.array([0, 2, 5, COUNT]), np.array([3, 0, 8, 5, 1])
    return {
        "embedding": Target(ids, lambda i: ops.embedding(table, i), "id {} at position {} is out of range".format),
        "embedding_sum": Target(
            pair,
            lambda i: ops.embedding_sum([other, table], [pair, i], padding_ids=[None, 0]),
            "id {} at position {} is out of range: there are 9, 0 to 8".format,
        ),
        "cross_entropy": Target(
            np.array([0, -100, 8, 1, -100, 5]),
            lambda i: ops.cross_entropy(logits, i),
            "label {} at position {} is out of range: there are 9, 0 to 8".format,
        ),
        "attention": Target(offsets, lambda i: ops.attention(x, x, x, i, heads=2, dropout=0.5), "{}".format),
        "scatter_rows": Target(places, lambda i: ops.scatter_rows(rows, i, COUNT), "{}".format),
        "getitem": Target(ids, lambda i: table[i], "index {} at position {} is out of bounds".format, -COUNT),
    }


@pytest.mark.parametrize("name", targets("cpu"))
def test_every_operation_refuses_and_goes_on(name: str, device: str) -> None:
    """100 placements for each operation and device: 1,200. The next call's bits are those of the first, dropout's mask
    among them: a refused call takes no number from the generator."""
    target, random = targets(device)[name], np.random.default_rng(1)
    generator = default_generator()
    before = target.call(target.right).numpy()
    for _ in range(100):
        value, position, array = misplaced(random, target.right, COUNT, target.lowest)
        generator.call = 0
        with pytest.raises((ValueError, IndexError)) as error:
            target.call(array)
        index = tuple(int(i) for i in np.unravel_index(position, target.right.shape))
        place = position if len(index) == 1 else index
        assert target.names(value, place) in str(error.value), (array, str(error.value))
        assert generator.call == 0
        assert same_bits(target.call(target.right).numpy(), before)


@pytest.mark.parametrize("name", ["attention", "scatter_rows", "getitem"])
def test_the_position_is_named_by_all(name: str) -> None:
    target = targets("cpu")[name]
    array = target.right.copy()
    array.reshape(-1)[2] = 77
    with pytest.raises((ValueError, IndexError), match="77 at position"):
        target.call(array)


@pytest.mark.parametrize("name", ["embedding", "embedding_sum", "cross_entropy", "attention", "scatter_rows"])
@pytest.mark.parametrize("value", [2**64 - 1, 2**64 - 100, 2**63])
def test_numbers_that_would_wrap(name: str, value: int) -> None:
    """uint64 beyond int64: 2^64 - 1 is -1 after a conversion, and 2^64 - 100 the label that is not scored."""
    target = targets("cpu")[name]
    array = np.where(target.right == -100, 0, target.right).astype(np.uint64)
    array[..., 1] = value
    with pytest.raises(ValueError, match=str(value)):
        target.call(array)


def test_indices_that_would_wrap() -> None:
    with pytest.raises(IndexError):
        targets("cpu")["getitem"].call(np.array([0, 2**64 - 1], np.uint64))


# -- the model's door --------------------------------------------------------------------------------------------------

LIMITS = {"input_ids": 12, "token_type_ids": 2, "segments": 2, "positions": 12, "labels": 3}
CALLED = {"input_ids": "token id", "token_type_ids": "segment", "segments": "segment", "positions": "position",
          "labels": "label"}  # fmt: skip
MASK = np.array([[0, 1, 1, 0, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]])


def small_model(device: str) -> BertForTokenClassification:
    """In training mode, so that dropout's numbers count."""
    return tiny_tagger(num_hidden_layers=1).to(device).train()


def forward(model: BertForTokenClassification, *arguments: Any, **named: Any) -> np.ndarray:
    default_generator().call = 0
    with no_grad():
        return model(*arguments, **named).logits.numpy()


@pytest.mark.parametrize("name", ["input_ids", "token_type_ids", "labels"])
def test_the_padded_door_refuses_and_goes_on(name: str, device: str) -> None:
    """60 placements among kept tokens for each argument and device: 360."""
    model, random = small_model(device), np.random.default_rng(2)
    right = {
        "input_ids": random.integers(0, 12, MASK.shape),
        "token_type_ids": random.integers(0, 2, MASK.shape),
        "labels": np.where(MASK == 1, random.integers(0, 3, MASK.shape), -100),
    }
    before = forward(model, attention_mask=MASK, **right)
    for number in range(60):
        value, position, array = misplaced(random, right[name], LIMITS[name], among=np.flatnonzero(MASK))
        row, column = divmod(position, MASK.shape[1])
        token = int(MASK[row, :column].sum())
        with pytest.raises(ValueError, match="out of range") as error:
            forward(model, attention_mask=MASK, **(right | {name: array}))
        wanted = f"{CALLED[name]} {value} in sentence {row}, token {token} (column {column}) is out of range"
        assert wanted in str(error.value)
        assert default_generator().call == 0
        if number % 6 == 0:
            assert same_bits(forward(model, attention_mask=MASK, **right), before)


@pytest.mark.parametrize("name", ["input_ids", "positions", "segments", "labels"])
def test_the_packed_door_refuses_and_goes_on(name: str, device: str) -> None:
    """60 placements for each array of a PackedBatch and each device: 480."""
    model, random = small_model(device), np.random.default_rng(3)
    batch = random_batch(random, model.config, sentences=4)
    before = forward(model, batch)
    for number in range(60):
        value, token, array = misplaced(random, getattr(batch, name), LIMITS[name])
        with pytest.raises(ValueError, match="out of range") as error:
            forward(model, replace(batch, **{name: array}))
        sentence = int((batch.cu_seqlens <= token).sum()) - 1
        assert f"{CALLED[name]} {value} in sentence {sentence}, token {token - batch.cu_seqlens[sentence]}" in str(
            error.value
        )
        assert default_generator().call == 0
        if number % 6 == 0:
            assert same_bits(forward(model, batch), before)


def test_a_packed_batch_refuses_offsets() -> None:
    """100 placements; the batch is never made."""
    random = np.random.default_rng(4)
    batch = random_batch(random, tiny_tagger().config, sentences=4)
    for _ in range(100):
        value, _, array = misplaced(random, batch.cu_seqlens, batch.token_count)
        with pytest.raises(ValueError, match="cu_seqlens must") as error:
            replace(batch, cu_seqlens=array)
        assert str(value) in str(error.value)


def test_the_padded_door_does_not_wrap() -> None:
    model, shape = small_model("cpu"), (1, 3)
    labels = np.zeros(shape, np.uint64)
    labels[0, 1] = 2**64 - 100
    with pytest.raises(ValueError, match=rf"labels\[0, 1\] is {2**64 - 100}"):
        model(np.ones(shape, np.int64), labels=labels)


def test_the_packed_door_does_not_wrap() -> None:
    model = small_model("cpu")
    batch = PackedBatch(np.ones(3, np.int64), np.arange(3), np.zeros(3, np.int64), np.array([0, 3]))
    for name in ("input_ids", "labels"):
        for value in (2**64 - 1, 2**64 - 100, 2**63):
            array = np.ones(3, np.uint64)
            array[1] = value
            with pytest.raises(ValueError, match=f"{CALLED[name]} {value} in sentence 0, token 1"):
                model(replace(batch, **{name: array}))
