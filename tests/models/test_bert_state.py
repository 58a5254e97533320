"""The models' state: dropout and initial weights by seed, dtypes, devices, folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from parity import largest
from tiny_bert import CONFIG, ROUNDING, example, gradients, tagger

import minitl
from minitl.models import BertForTokenClassification, BertModel
from minitl.random import default_generator

# -- training mode and randomness --------------------------------------------------------------------------------------


def test_composed_and_fused_attention_agree_with_dropout_on() -> None:
    inputs, model = example(), tagger().train()
    found = []
    for attentions in (True, False):
        minitl.manual_seed(3)
        out = model(**inputs.arguments(), output_attentions=attentions)
        found.append((out.logits.numpy(), gradients(model, out.loss)))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=ROUNDING)
    for name, gradient in found[0][1].items():
        np.testing.assert_allclose(found[1][1][name], gradient, atol=ROUNDING, err_msg=name)


def test_the_seed_repeats_dropout_and_only_training_draws() -> None:
    inputs, model = example(), tagger()
    arguments = inputs.arguments()
    minitl.manual_seed(7)
    np.testing.assert_array_equal(model(**arguments).logits.numpy(), model(**arguments).logits.numpy())
    assert default_generator().call == 0
    model.train()
    first, second = model(**arguments).logits.numpy(), model(**arguments).logits.numpy()
    assert largest(first - second) > 1e-3
    minitl.manual_seed(7)
    np.testing.assert_array_equal(model(**arguments).logits.numpy(), first)
    np.testing.assert_array_equal(model(**arguments).logits.numpy(), second)


@pytest.mark.parametrize(
    ("rates", "calls"),
    [
        ({}, 1 + 2 * 3 + 1),  # embeddings; attention and the ends of both sublayers in each layer; classifier
        ({"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.3}, 1),
        ({"hidden_dropout_prob": 0.0, "classifier_dropout": 0.0}, 2),
        ({"classifier_dropout": 0.0}, 1 + 2 * 3),
        (
            {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
            0,
        ),  # classifier_dropout None: the hidden one
    ],
)
def test_every_dropout_site_draws_one_call(rates: dict[str, float], calls: int) -> None:
    model = tagger(replace(CONFIG, **rates)).train()
    for attentions in (True, False):
        minitl.manual_seed(0)
        model(**example().arguments(), output_attentions=attentions)
        assert default_generator().call == calls


def test_the_seed_repeats_the_initial_weights() -> None:
    states = []
    for seed in (4, 4, 5):
        minitl.manual_seed(seed)
        states.append(BertForTokenClassification(CONFIG).state_dict())
    assert all((states[0][name] == states[1][name]).all() for name in states[0])
    assert any((states[0][name] != states[2][name]).any() for name in states[0])


def test_initial_weights_have_the_spread_asked_for() -> None:
    config = replace(CONFIG, vocab_size=5000, hidden_size=60, initializer_range=0.05, pad_token_id=3)
    for name, values in BertForTokenClassification(config).state_dict().items():
        if name.endswith("bias"):
            assert not values.any(), name
        elif "LayerNorm" in name:
            assert (values == 1).all(), name
        elif name.endswith("word_embeddings.weight"):
            assert not values[3].any()
            assert np.delete(values, 3, axis=0).std() == pytest.approx(0.05, rel=0.01)  # 300,000 numbers: 1e-3 expected
        else:
            # sd of a sample's sd over n numbers is 1/sqrt(2n); 120 numbers in the smallest table, five times that
            assert values.std() == pytest.approx(0.05, rel=5 / np.sqrt(2 * values.size)), name


# -- dtypes, devices, folders ------------------------------------------------------------------------------------------


def test_to_converts_the_model_and_drops_gradients() -> None:
    inputs = example()
    model = tagger(dtype="float32")
    narrow = model(**inputs.arguments())
    narrow.loss.backward()
    assert model.to(dtype="float64") is model
    assert all(parameter.dtype == np.float64 and parameter.grad is None for parameter in model.parameters())
    wide = model(**inputs.arguments())
    assert wide.logits.dtype == np.float64
    # the same weights: what is left is float32's rounding, some 1e-7 a step, on logits of order 1
    np.testing.assert_allclose(narrow.logits.numpy(), wide.logits.numpy(), atol=1e-5)
    wide.loss.backward()
    back = model.to(dtype="float32")(**inputs.arguments())
    np.testing.assert_array_equal(back.logits.numpy(), narrow.logits.numpy())
    with pytest.raises(TypeError, match="float32 or float64, not float16"):
        model.to(dtype="float16")


def test_the_whole_model_runs_where_numpy_may_not_be_called(strict_device: str) -> None:
    inputs, model = example(), tagger().train()
    minitl.manual_seed(2)
    out = model(**inputs.arguments(), output_attentions=True)
    expected = gradients(model, out.loss)
    model.to(device=strict_device)
    minitl.manual_seed(2)
    moved = model(**inputs.arguments(), output_attentions=True)
    assert moved.logits.device == strict_device
    np.testing.assert_array_equal(moved.logits.numpy(), out.logits.numpy())
    for name, gradient in gradients(model, moved.loss).items():
        np.testing.assert_array_equal(gradient, expected[name], err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_saved_tagger_comes_back_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    inputs, model = example(), tagger(replace(CONFIG, hidden_act="gelu_new", classifier_dropout=0.2), dtype)
    model.save_pretrained(tmp_path)
    loaded = BertForTokenClassification.from_pretrained(tmp_path, dtype=dtype)
    assert not loaded.training
    assert replace(loaded.config, extra={}) == model.config
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], values, err_msg=name)
    np.testing.assert_array_equal(
        loaded(**inputs.arguments()).logits.numpy(), model(**inputs.arguments()).logits.numpy()
    )


@pytest.mark.parametrize("add_pooler", [True, False])
def test_a_saved_encoder_comes_back_with_or_without_its_pooler(tmp_path: Path, add_pooler: bool) -> None:
    inputs, model = example(), BertModel(CONFIG, add_pooler=add_pooler).eval()
    model.save_pretrained(tmp_path)
    loaded = BertModel.from_pretrained(tmp_path)
    assert (loaded.pooler is not None) == add_pooler
    found, expected = (m(**inputs.arguments(labels=False)) for m in (loaded, model))
    np.testing.assert_array_equal(found.last_hidden_state.numpy(), expected.last_hidden_state.numpy())
    if add_pooler:
        np.testing.assert_array_equal(found.pooler_output.numpy(), expected.pooler_output.numpy())


def test_the_encoder_of_a_saved_tagger_gives_its_hidden_states(tmp_path: Path) -> None:
    inputs, model = example(), tagger(dtype="float32")
    model.save_pretrained(tmp_path)
    states = BertModel.from_pretrained(tmp_path)(**inputs.arguments(labels=False)).last_hidden_state
    expected = model(**inputs.arguments(), output_hidden_states=True).hidden_states[-1]
    np.testing.assert_array_equal(states.numpy(), expected.numpy())
