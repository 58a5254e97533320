"""Sentences are independent: neither company, nor padding, nor order, nor the cut into batches changes an answer.

Compared are the logits, all hidden states, the loss and the gradient of every parameter. Where the same rows go through
the same operations, bits are compared. Where sums run over other numbers of rows, the measure is the largest absolute
difference, of gradients divided by the largest gradient of the model: 1e-12 in float64, 2e-5 in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, pairwise
from typing import Any

import gold
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from parity import Arrays, largest
from tiny_bert import CONFIG, gradients, tagger

import minitl
from minitl.kernels.dropout import reference as dropout_kernel
from minitl.models import BertForTokenClassification, PackedBatch
from minitl.random import default_generator

CONFIGS = {
    "gelu, 3 heads": CONFIG,
    "gelu_new, 1 head": replace(CONFIG, num_attention_heads=1, hidden_act="gelu_new", num_hidden_layers=1),
    "relu, 1 head": replace(CONFIG, num_attention_heads=1, hidden_act="relu", hidden_size=11),
}
# Values and gradients are of order 1. A few roundings, of 1e-16 and 6e-8, in each of some twenty steps; the largest
# differences of 300 examples of each test were 3e-15 and 3e-6.
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}
COLUMNS = CONFIG.max_position_embeddings


@dataclass(frozen=True)
class Sentence:
    """Kept tokens and the columns where they stand, each (L,)."""

    ids: np.ndarray
    segments: np.ndarray
    labels: np.ndarray
    columns: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def unlabelled(self) -> Sentence:
        return replace(self, labels=np.full_like(self.labels, -100))


@st.composite
def sentence_lists(draw: st.DrawFn, least: int = 1, most: int = 5, last_column: int = COLUMNS) -> list[Sentence]:
    """Sentences of 1 to 8 tokens, padded on either side and with holes; the first token of each is scored."""
    lengths = draw(st.lists(st.integers(1, 8), min_size=least, max_size=most))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    result = []
    for length in lengths:
        first = draw(st.integers(0, last_column - length))
        last = draw(st.integers(first + length, last_column))
        labels = np.where(random.random(length) < 0.7, random.integers(0, 4, length), -100)
        labels[0] = random.integers(0, 4)
        columns = first + np.sort(random.choice(last - first, length, replace=False))
        result.append(Sentence(random.integers(1, 40, length), random.integers(0, 2, length), labels, columns))
    return result


def packed(sentences: Sequence[Sentence]) -> PackedBatch:
    return PackedBatch(
        input_ids=np.concatenate([sentence.ids for sentence in sentences]),
        positions=np.concatenate([sentence.columns for sentence in sentences]),
        segments=np.concatenate([sentence.segments for sentence in sentences]),
        cu_seqlens=np.cumsum([0, *map(len, sentences)]),
        labels=np.concatenate([sentence.labels for sentence in sentences]),
    )


def padded(sentences: Sequence[Sentence], extra: int = 0) -> dict[str, np.ndarray]:
    """Arguments (B, S) with ``extra`` columns more than needed; whatever lies under the mask."""
    shape = (len(sentences), 1 + extra + max(sentence.columns.max() for sentence in sentences))
    fillings = {"input_ids": 99, "attention_mask": 0, "token_type_ids": 7, "labels": -100}
    arguments = {name: np.full(shape, filling) for name, filling in fillings.items()}
    for row, sentence in enumerate(sentences):
        for name, values in zip(fillings, (sentence.ids, 1, sentence.segments, sentence.labels), strict=True):
            arguments[name][row, sentence.columns] = values
    return arguments


@dataclass(frozen=True)
class Results:
    """What a model made of some batches: rows (T, ...) of each kind, the whole loss, gradients by name."""

    rows: Arrays
    loss: float
    gradients: Arrays

    def of_sentence(self, number: int, sentences: Sequence[Sentence]) -> Arrays:
        start = sum(map(len, sentences[:number]))
        return {kind: rows[start : start + len(sentences[number])] for kind, rows in self.rows.items()}


@cache
def model_of(name: str, dtype: str) -> BertForTokenClassification:
    return tagger(CONFIGS[name], dtype)


def run(model: Any, *batches: Any, **options: Any) -> Results:
    """Run batches, packed or padded, as the parts of one, each weighted with its share of the scored labels."""
    outs, rows = [], []
    for batch in batches:
        is_packed = isinstance(batch, PackedBatch)
        arguments = {"input_ids": batch} if is_packed else batch
        kept = slice(None) if is_packed else batch["attention_mask"] == 1
        out = model(**arguments, output_hidden_states=True, **options)
        kinds = {"logits": out.logits} | {f"state {i}": state for i, state in enumerate(out.hidden_states)}
        rows.append({kind: tensor.numpy()[kept] for kind, tensor in kinds.items()})
        outs.append(out)
    total = sum(out.label_count for out in outs)
    losses = [out.loss * (out.label_count / total) for out in outs]
    return Results(
        {kind: np.concatenate([part[kind] for part in rows]) for kind in rows[0]},
        sum(loss.item() for loss in losses),
        gradients(model, *losses),
    )


def assert_close(found: Results, expected: Results, dtype: str) -> None:
    assert_rows_close(found.rows, expected.rows, dtype)
    assert abs(found.loss - expected.loss) <= TOLERANCE[dtype]
    scale = max(largest(gradient) for gradient in expected.gradients.values())
    assert scale > 1e-3
    for name, gradient in expected.gradients.items():
        assert largest(found.gradients[name] - gradient) <= TOLERANCE[dtype] * scale, name


def assert_rows_close(found: Arrays, expected: Arrays, dtype: str) -> None:
    for kind, rows in expected.items():
        assert largest(found[kind] - rows) <= TOLERANCE[dtype], kind


def assert_same_bits(found: Results, expected: Results, but: Iterable[str] = ()) -> None:
    for kind, rows in expected.rows.items():
        np.testing.assert_array_equal(found.rows[kind], rows, err_msg=kind)
    assert found.loss == expected.loss
    for name in expected.gradients.keys() - set(but):
        np.testing.assert_array_equal(found.gradients[name], expected.gradients[name], err_msg=name)


def examples(count: int) -> settings:
    """So many examples. One that fails is shown as it was found: a simpler one takes minutes to find."""
    return settings(max_examples=count, phases=(Phase.explicit, Phase.reuse, Phase.generate))


either = {"name": st.sampled_from(sorted(CONFIGS)), "dtype": st.sampled_from(sorted(TOLERANCE))}


@examples(15)
@given(sentences=sentence_lists(least=2), **either)
def test_a_sentence_alone_has_the_answers_it_has_in_company(sentences: list[Sentence], name: str, dtype: str) -> None:
    """Also the gradients, where it is the only one in the batch that has labels."""
    model = model_of(name, dtype)
    together = run(model, packed(sentences))
    for number, sentence in enumerate(sentences):
        alone = run(model, packed([sentence]))
        assert_rows_close(alone.rows, together.of_sentence(number, sentences), dtype)
    mute = [sentence.unlabelled() for sentence in sentences[:-1]]
    in_company = run(model, padded([*mute, sentences[-1]]))
    assert_close(in_company, replace(alone, rows=together.rows), dtype)


@examples(25)
@given(sentences=sentence_lists(), extra=st.one_of(st.integers(0, 20), st.just(500)), **either)
def test_padding_changes_no_bit(sentences: list[Sentence], extra: int, name: str, dtype: str) -> None:
    """By any length on the right, and on the left for tokens in their columns: a token's column is its position."""
    model = model_of(name, dtype)
    assert_same_bits(run(model, padded(sentences, extra)), run(model, packed(sentences)))


@examples(15)
@given(sentences=sentence_lists(last_column=9), shift=st.integers(0, COLUMNS - 9), **either)
def test_a_model_without_positions_does_not_tell_left_padding_from_right(
    sentences: list[Sentence], shift: int, name: str, dtype: str
) -> None:
    """With one vector for all positions, only the gradient of those knows in which columns the tokens were."""
    table = "bert.embeddings.position_embeddings.weight"
    model = tagger(CONFIGS[name], dtype)
    model.load_state_dict(model.state_dict() | {table: np.full((COLUMNS, CONFIGS[name].hidden_size), 0.25, dtype)})
    moved = [replace(sentence, columns=shift + np.arange(len(sentence))) for sentence in sentences]
    assert_same_bits(run(model, padded(moved)), run(model, padded(sentences)), but=[table])


@examples(20)
@given(sentences=sentence_lists(least=2), data=st.data(), **either)
def test_the_order_in_the_batch_does_not_matter(
    sentences: list[Sentence], data: st.DataObject, name: str, dtype: str
) -> None:
    model = model_of(name, dtype)
    order = data.draw(st.permutations(range(len(sentences))))
    shuffled = [sentences[number] for number in order]
    straight, found = run(model, packed(sentences)), run(model, padded(shuffled))
    rows = [straight.of_sentence(number, sentences) for number in order]
    expected = {kind: np.concatenate([of_one[kind] for of_one in rows]) for kind in straight.rows}
    assert_close(found, replace(straight, rows=expected), dtype)


@examples(6)
@given(sentences=sentence_lists(least=4, most=4), mute=st.integers(0, 4), **either)
def test_accumulating_by_label_counts_equals_one_batch(
    sentences: list[Sentence], mute: int, name: str, dtype: str
) -> None:
    """All 8 ways to cut four sentences into parts in a row; one of the four, or none, has no scored label."""
    model = model_of(name, dtype)
    sentences = [s.unlabelled() if number == mute else s for number, s in enumerate(sentences)]
    whole = run(model, packed(sentences))
    for count in range(4):
        for cuts in combinations((1, 2, 3), count):
            parts = [packed(sentences[start:stop]) for start, stop in pairwise((0, *cuts, 4))]
            assert_close(run(model, *parts), whole, dtype)


# -- dropout -----------------------------------------------------------------------------------------------------------

RATES = {"hidden_dropout_prob": 0.25, "attention_probs_dropout_prob": 0.4, "classifier_dropout": 0.5}


def training_model(name: str, dtype: str) -> BertForTokenClassification:
    return tagger(replace(CONFIGS[name], **RATES), dtype).train()  # type: ignore[arg-type]


def three_ways(sentences: Sequence[Sentence], extra: int) -> list[tuple[Any, dict[str, bool]]]:
    """Packed and padded through the fused attention, and padded through the composed one."""
    wide = padded(sentences, extra)
    return [(packed(sentences), {}), (wide, {}), (wide, {"output_attentions": True})]


@examples(12)
@given(sentences=sentence_lists(), extra=st.integers(0, 9), seed=st.integers(0, 2**64 - 1), **either)
def test_packed_equals_padded_with_dropout(
    sentences: list[Sentence], extra: int, seed: int, name: str, dtype: str
) -> None:
    """Bit by bit through the fused attention; through the composed one only its products may be summed otherwise."""
    model, results, calls = training_model(name, dtype), [], []
    for batch, options in three_ways(sentences, extra):
        minitl.manual_seed(seed)
        results.append(run(model, batch, **options))
        calls.append(default_generator().call)
    assert_same_bits(results[1], results[0])
    assert_close(results[2], results[0], dtype)
    assert len(set(calls)) == 1


Masks = dict[int, dict[int, bool]]


def recorded_masks(model: Any, batch: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Masks:
    """For each call of the generator, which elements were kept; forward and backward must say the same."""
    masks: Masks = {}
    keep_mask = dropout_kernel.keep_mask

    def recording(shape: tuple[int, ...], *, call: int, first: int = 0, **others: Any) -> np.ndarray:
        mask = keep_mask(shape, call=call, first=first, **others)
        for element, kept in enumerate(mask.ravel().tolist(), start=first):
            assert masks.setdefault(call, {}).setdefault(element, kept) == kept
        return mask

    with monkeypatch.context() as patch, minitl.use_kernels("reference"):
        patch.setattr(dropout_kernel, "keep_mask", recording)
        minitl.manual_seed(77)
        run(model, batch, **options)
    return masks


@pytest.mark.parametrize("name", CONFIGS)
def test_masks_are_those_of_the_design_packed_padded_fused_and_composed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls in the order of the sites: embeddings; in each layer attention, its output, the feed-forward's; classifier.

    Elements are numbered ``t * D + d``; in attention by sentence, head, query, key.
    """
    random = np.random.default_rng(3)
    sentences = [
        Sentence(random.integers(1, 40, n), np.zeros(n, np.int64), np.zeros(n, np.int64), column + np.arange(n))
        for n, column in ((5, 0), (1, 3), (4, 1))
    ]
    config, model = CONFIGS[name], training_model(name, "float32")
    hidden = (10 * config.hidden_size, RATES["hidden_dropout_prob"])
    attention = (config.num_attention_heads * (25 + 1 + 16), RATES["attention_probs_dropout_prob"])
    classifier = (10 * config.hidden_size, RATES["classifier_dropout"])
    sites = [hidden, *([attention, hidden, hidden] * config.num_hidden_layers), classifier]
    expected = {
        call: {element: gold.word(element, 77, call) >= int(rate * 2**32) for element in range(count)}
        for call, (count, rate) in enumerate(sites)
    }
    for batch, options in three_ways(sentences, extra=3):
        assert recorded_masks(model, batch, monkeypatch, **options) == expected
