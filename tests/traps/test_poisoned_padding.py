"""NaN, Inf and 1e30 where nothing counts: the bits of what counts stay, forward and backward."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from trap_tools import (
    POISON,
    Bools,
    Floats,
    Integers,
    parameter_gradients,
    random_batch,
    random_masks,
    same_bits,
    tiny_config,
    tiny_tagger,
    values_and_gradients,
)

from minitl import Tensor, no_grad, ops, optim
from minitl.random import Generator
from minitl.training import train_step


def poisoned(array: Floats, where: Bools, random: np.random.Generator) -> Floats:
    """``array`` with poison of every kind where it is allowed."""
    return np.where(where, random.choice(POISON, array.shape), array).astype(array.dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_masked_columns_of_softmax(rate: float, dtype: str) -> None:
    """1,000 rows, each with poison in all masked columns."""
    random = np.random.default_rng(0)
    for _ in range(20):
        columns = int(random.integers(2, 40))
        mask = random_masks(random, 50, 1, columns)[:, 0]
        x, upstream = (random.standard_normal(mask.shape).astype(dtype) for _ in range(2))

        def call(x: Tensor, mask: Bools = mask) -> Tensor:
            return ops.softmax(x, mask, scale=0.7, dropout=rate, generator=Generator(5, 9))

        clean = values_and_gradients(call, [x], upstream)
        with np.errstate(over="raise", invalid="raise"):  # not even NumPy notices anything
            dirty = values_and_gradients(call, [poisoned(x, ~mask, random)], upstream)
        assert all(same_bits(*pair) for pair in zip(clean, dirty, strict=True))


@pytest.mark.parametrize("poison", POISON[:3])
def test_the_gradient_that_arrives_at_masked_columns(poison: float) -> None:
    """What a masked column is multiplied with later may be poison; its own value is 0 whatever the scores are."""
    x, mask = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), np.array([[True, True, False], [False, False, False]])
    gradients = []
    for value in (0.0, poison):
        upstream = np.where(mask, [[1.0, 2.0, 3.0]], value)
        gradients.append(values_and_gradients(lambda x: ops.softmax(x, mask), [x], upstream)[1])
    np.testing.assert_array_equal(gradients[1], gradients[0])


def ignored_loss(labels: Integers, variant: int) -> Any:
    options: dict[str, Any] = {}
    if variant % 2:
        options["label_smoothing"] = 0.1
    if variant % 3 == 0:
        options["class_weights"] = np.array([0.5, 1.0, 2.0, 0.25, 3.0])
    return lambda x: ops.cross_entropy(x, labels, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_that_are_not_scored(dtype: str) -> None:
    """250 batches: poison in the logits of ignored labels, of none to all of them."""
    random = np.random.default_rng(1)
    for number in range(250):
        labels = random.integers(0, 5, 8)
        ignored = random.random(8) < (number % 11) / 10  # 0 to 100 %
        labels[ignored] = -100
        x = random.standard_normal((8, 5)).astype(dtype)
        call, upstream = ignored_loss(labels, number), np.array(1.5)
        clean = values_and_gradients(call, [x], upstream)
        where = ignored[:, None] & (random.random(x.shape) < 0.7)
        with np.errstate(invalid="ignore"):  # Inf - Inf is computed there, and not used
            dirty = values_and_gradients(call, [poisoned(x, where, random)], upstream)
        assert all(same_bits(*pair) for pair in zip(clean, dirty, strict=True))
        assert not dirty[1][ignored].any()


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_other_sentences_of_attention(rate: float) -> None:
    """In 70 batches most sentences are poison, in q, k, v and the gradient: 280 sentences, about 840 tokens."""
    random = np.random.default_rng(2)
    for _ in range(70):
        lengths = random.integers(1, 6, 6)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        healthy = np.zeros(6, dtype=bool)
        healthy[random.choice(6, 2, replace=False)] = True
        rows = np.repeat(healthy, lengths)
        arrays = [random.standard_normal((rows.size, 6)).astype(np.float32) for _ in range(4)]

        def call(q: Tensor, k: Tensor, v: Tensor, offsets: Integers = offsets) -> Tensor:
            return ops.attention(q, k, v, offsets, heads=2, dropout=rate, generator=Generator(5, 9))

        clean = values_and_gradients(call, arrays[:3], arrays[3])
        arrays = [poisoned(array, ~rows[:, None], random) for array in arrays]
        with np.errstate(all="ignore"):
            dirty = values_and_gradients(call, arrays[:3], arrays[3])
        assert all(same_bits(one[rows], other[rows]) for one, other in zip(clean, dirty, strict=True))


@pytest.mark.parametrize("attentions", [False, True], ids=["fused", "composed"])
def test_tables_rows_that_only_masked_tokens_ask_for(attentions: bool) -> None:
    """The word vector of the padding id is poison, and those of positions and segments that only padding has: logits
    and every gradient keep their bits. 10 batches with more than 1,000 masked tokens."""
    random = np.random.default_rng(3)
    placements = 0
    for number in range(10):
        mask = random_masks(random, 6, 1, 40)[:, 0]
        mask[:, 0] |= ~mask.any(axis=1)
        mask[:, 36:] = False  # positions that only padding has
        mask[~mask.any(axis=1), 1] = True
        ids = np.where(mask, random.integers(1, 12, mask.shape), 0)
        arguments = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.where(mask, 0, 1),
            "labels": np.where(mask, random.integers(0, 3, mask.shape), -100),
        }
        placements += int((~mask).sum())
        runs = []
        for poison in (None, POISON[number % len(POISON)]):
            model = tiny_tagger(
                num_hidden_layers=1, max_position_embeddings=40, hidden_dropout_prob=0.2 * (number % 2)
            ).train()
            if poison is not None:
                tables = model.bert.embeddings
                tables.word_embeddings.weight.array[0] = poison
                tables.position_embeddings.weight.array[36:] = poison
                tables.token_type_embeddings.weight.array[1] = poison
            out = model(**arguments, output_attentions=attentions)
            assert out.loss is not None
            out.loss.backward()
            runs.append({"logits": out.logits.numpy(), "loss": out.loss.numpy(), **parameter_gradients(model)})
        for name, value in runs[0].items():
            assert same_bits(value, runs[1][name]), name
    assert placements > 1000


def test_a_poisoned_sentence_beside_others() -> None:
    """A whole sentence of NaN in a packed batch: 100 batches, 500 sentences beside it, whose logits keep their bits."""
    random = np.random.default_rng(4)
    config = tiny_config()
    model, sick = tiny_tagger(num_hidden_layers=1), tiny_tagger(num_hidden_layers=1)
    sick.bert.embeddings.word_embeddings.weight.array[11] = np.nan
    for _ in range(100):
        batch = random_batch(random, replace(config, vocab_size=11), 6)
        sentence = int(random.integers(6))
        rows = slice(*batch.cu_seqlens[sentence : sentence + 2])
        batch.input_ids[rows] = 11
        with no_grad():
            clean, dirty = model(batch).logits.numpy(), sick(batch).logits.numpy()
        assert np.isnan(dirty[rows]).all()
        others = np.ones(len(clean), dtype=bool)
        others[rows] = False
        assert same_bits(clean[others], dirty[others])


def test_training_beside_a_poisoned_row() -> None:
    """Norm, clipping and AdamW see only gradients that exist: 12 steps leave the same weights, bit for bit."""
    batches = [random_batch(np.random.default_rng(number), tiny_config()) for number in range(12)]
    weights = []
    for poison in (0.0, np.nan):
        model = tiny_tagger(num_hidden_layers=1, hidden_dropout_prob=0.1).train()
        model.bert.embeddings.word_embeddings.weight.array[0] = poison
        optimizer = optim.AdamW(optim.decay_groups(model, 0.01), lr=1e-3)
        for batch in batches:
            assert batch.input_ids.all()  # no token is the padding id
            train_step(model, [batch], optimizer, max_norm=0.1)
        state = {name: values.copy() for name, values in model.state_dict().items()}
        words = next(name for name in state if name.endswith("word_embeddings.weight"))
        assert np.isnan(state[words][0]).all() == bool(np.isnan(poison))
        state[words] = state[words][1:]
        weights.append(state)
    for name, values in weights[0].items():
        assert same_bits(values, weights[1][name]), name
