"""The door: padded arrays in, packed rows, padded outputs; and everything it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny_bert import CONFIG, example, tagger

import minitl
from minitl import Tensor
from minitl.models import BertForTokenClassification, BertModel, PackedBatch
from minitl.models.padding import pack

shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=7)
masks = hnp.arrays(bool, shapes).filter(lambda mask: mask.any(axis=1).all())


@given(mask=masks)
def test_packing_keeps_exactly_the_kept_tokens_in_order_with_their_columns(mask: npt.NDArray[np.bool_]) -> None:
    ids = np.arange(mask.size).reshape(mask.shape)
    labels = np.where(mask, ids + 5, -100)
    batch, padding = pack(ids, mask.astype(np.int64), ids % 2, labels)
    expected = [(row, column) for row in range(mask.shape[0]) for column in range(mask.shape[1]) if mask[row, column]]
    assert batch.input_ids.tolist() == [ids[place] for place in expected]
    assert batch.positions.tolist() == [column for _, column in expected]
    assert batch.segments.tolist() == [ids[place] % 2 for place in expected]
    assert batch.labels is not None
    assert batch.labels.tolist() == [ids[place] + 5 for place in expected]
    assert batch.cu_seqlens.tolist() == [0, *np.cumsum(mask.sum(axis=1)).tolist()]
    assert padding.rows.tolist() == [ids[place] for place in expected]  # ids count the places


@given(mask=masks, width=st.integers(1, 3))
def test_unpacking_is_the_inverse_with_zeros_elsewhere_and_so_is_its_gradient(
    mask: npt.NDArray[np.bool_], width: int
) -> None:
    ids = np.arange(mask.size).reshape(mask.shape)
    batch, padding = pack(ids, mask.astype(np.int64), None, None)
    rows = Tensor(1.0 + np.arange(batch.token_count * width, dtype=np.float64).reshape(-1, width), requires_grad=True)
    padded = padding.unpack(rows)
    assert padded.shape == (*mask.shape, width)
    np.testing.assert_array_equal(padded.numpy()[mask], rows.numpy())
    assert not padded.numpy()[~mask].any()
    upstream = np.random.default_rng(0).standard_normal(padded.shape)
    (padded * upstream).sum().backward()
    assert rows.grad is not None
    np.testing.assert_array_equal(rows.grad.numpy(), upstream[mask])


def test_without_mask_and_segments_all_tokens_are_kept_in_segment_0() -> None:
    ids = example().input_ids
    batch, _ = pack(ids, None, None, None)
    assert batch.token_count == ids.size
    assert not batch.segments.any()
    assert batch.labels is None


@pytest.mark.parametrize("training", [False, True])
def test_padded_equals_packed_bit_for_bit(training: bool) -> None:
    # the same arrays go through the same code in the same order: no tolerance; dropout masks included
    inputs, model = example(), tagger(dtype="float32").train(training)
    batch, padding = pack(**inputs.arguments())
    minitl.manual_seed(5)
    padded = model(**inputs.arguments())
    minitl.manual_seed(5)
    packed = model(batch)
    assert packed.logits.shape == (batch.token_count, 4)
    np.testing.assert_array_equal(padded.logits.numpy()[inputs.kept], packed.logits.numpy())
    np.testing.assert_array_equal(padding.unpack(packed.logits).numpy(), padded.logits.numpy())
    assert padded.loss.item() == packed.loss.item()
    assert padded.label_count == packed.label_count == (inputs.labels != -100).sum()
    gradients = []
    for out in (padded, packed):
        for parameter in model.parameters():
            parameter.grad = None
        out.loss.backward()
        gradients.append({name: parameter.grad.numpy().copy() for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        np.testing.assert_array_equal(gradient, gradients[1][name], err_msg=name)


def test_what_lies_under_the_mask_changes_nothing() -> None:
    inputs, model = example(), tagger()
    expected = model(**inputs.arguments()).logits.numpy()
    ids = np.where(inputs.kept, inputs.input_ids, -7)  # not even a range is asked of masked ids and segments
    segments = np.where(inputs.kept, inputs.token_type_ids, 99)
    found = model(ids, inputs.attention_mask, segments).logits.numpy()
    np.testing.assert_array_equal(found, expected)


def test_more_padding_changes_nothing() -> None:
    inputs, model = example(), tagger()
    wider = {name: np.pad(array, ((0, 0), (0, 3))) for name, array in inputs.arguments(labels=False).items()}
    found = model(**wider).logits.numpy()
    np.testing.assert_array_equal(found[:, :-3], model(**inputs.arguments(labels=False)).logits.numpy())
    assert not found[:, -3:].any()


def test_lists_tensors_and_every_integer_type_are_accepted() -> None:
    inputs, model = example(), tagger()
    named = inputs.arguments()
    expected = model(**named)
    as_int32 = {name: array.astype(np.int32) for name, array in named.items()}
    as_bool = named | {"attention_mask": inputs.kept}
    as_float_mask = named | {"attention_mask": inputs.attention_mask.astype(np.float32)}
    tensors = {name: Tensor(array) for name, array in named.items()}
    lists: dict[str, Any] = {name: array.tolist() for name, array in named.items()}
    for arguments in (as_int32, as_bool, as_float_mask, tensors, lists):
        out = model(**arguments)
        np.testing.assert_array_equal(out.logits.numpy(), expected.logits.numpy())
        assert out.loss.item() == expected.loss.item()


def test_the_callers_arrays_are_left_alone() -> None:
    inputs = example()
    before = {name: array.copy() for name, array in inputs.arguments().items()}
    tagger()(**inputs.arguments(), output_attentions=True).loss.backward()
    for name, array in inputs.arguments().items():
        np.testing.assert_array_equal(array, before[name])


# -- what is refused ---------------------------------------------------------------------------------------------------


def ones(*shape: int) -> npt.NDArray[np.int64]:
    return np.ones(shape, np.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_ids": ones(5)}, r"input_ids must be \(B, S\).*\(5,\)"),
        ({"input_ids": ones(2, 3, 4)}, r"input_ids must be \(B, S\)"),
        ({"input_ids": ones(0, 3)}, r"input_ids must be \(B, S\) with at least one token"),
        ({"input_ids": ones(2, 0)}, r"with at least one token"),
        ({"input_ids": ones(2, 3), "attention_mask": ones(2, 4)}, r"attention_mask has shape \(2, 4\)"),
        ({"input_ids": ones(2, 3), "attention_mask": ones(2, 3, 3)}, "masks of pairs are not supported"),
        ({"input_ids": ones(2, 3), "attention_mask": 2 * ones(2, 3)}, "attention_mask must hold 0 and 1 only"),
        ({"input_ids": ones(2, 3), "attention_mask": np.full((2, 3), np.nan)}, "0 and 1 only"),
        ({"input_ids": ones(2, 3), "token_type_ids": ones(3, 2)}, r"token_type_ids has shape \(3, 2\)"),
        ({"input_ids": ones(2, 3), "labels": ones(2)}, r"labels has shape \(2,\)"),
        ({"input_ids": ones(2, 3), "attention_mask": [[1, 1, 1], [0, 0, 0]]}, "keeps nothing in row 1"),
        (
            {"input_ids": ones(2, 3), "attention_mask": [[1, 1, 1], [1, 1, 0]], "labels": [[0, 0, 0], [0, -100, 3]]},
            r"labels\[1, 2\] is 3 but attention_mask is 0 there",
        ),
    ],
)
def test_shapes_and_masks_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tagger()(**arguments)


@pytest.mark.parametrize("name", ["input_ids", "token_type_ids", "labels"])
def test_numbers_that_are_no_integers_are_refused(name: str) -> None:
    arguments = {"input_ids": ones(2, 3), name: np.ones((2, 3))}
    with pytest.raises(TypeError, match=f"{name} must be integers, not float64"):
        tagger()(**arguments)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "input_ids",
            40,
            r"token id 40 in sentence 1, token 2 \(column 3\) is out of range: the model has 40, 0",
        ),
        ("input_ids", -1, r"token id -1 in sentence 1, token 2 \(column 3\)"),
        ("token_type_ids", 2, r"segment 2 in sentence 1, token 2 \(column 3\) is out of range: the model has 2"),
        ("labels", 4, r"label 4 in sentence 1, token 2 \(column 3\) is out of range: the model has 4, 0 to 3.*-100"),
        ("labels", -1, r"label -1 in sentence 1, token 2 \(column 3\)"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_place(name: str, value: int, message: str) -> None:
    mask = ones(2, 5)
    mask[1, 0] = 0  # so that a token's number and its column differ
    arguments = {"input_ids": ones(2, 5), "token_type_ids": 0 * mask, "labels": np.where(mask == 1, 0, -100)}
    arguments[name][1, 3] = value
    with pytest.raises(ValueError, match=message):
        tagger()(**arguments, attention_mask=mask)


def test_a_position_out_of_range_is_named_and_windows_are_recommended() -> None:
    mask = ones(1, 17)
    mask[0, :3] = 0
    with pytest.raises(ValueError, match=r"position 16 in sentence 0, token 13 \(column 16\).*has 16.*windows"):
        tagger()(ones(1, 17), mask)
    mask[0, 16] = 0  # what is masked has no position
    assert tagger()(ones(1, 17), mask).logits.shape == (1, 17, 4)


@pytest.mark.parametrize("extra", ["attention_mask", "token_type_ids", "labels"])
def test_a_packed_batch_brings_everything_itself(extra: str) -> None:
    batch, _ = pack(**example().arguments())
    with pytest.raises(ValueError, match="a PackedBatch brings its own mask, segments and labels"):
        tagger()(batch, **{extra: ones(2, 3)})


@pytest.mark.parametrize("model_class", [BertModel, BertForTokenClassification])
def test_attentions_of_a_packed_batch_are_refused(model_class: type[Any]) -> None:
    batch, _ = pack(**example().arguments())
    with pytest.raises(ValueError, match="output_attentions needs padded input"):
        model_class(CONFIG)(batch, output_attentions=True)


def test_ranges_of_a_packed_batch_are_checked_too() -> None:
    batch, _ = pack(**example().arguments())
    wrong = PackedBatch(batch.input_ids, batch.positions + 10, batch.segments, batch.cu_seqlens)
    with pytest.raises(ValueError, match="position 16 in sentence 0, token 6"):
        tagger()(wrong)
