"""BertModel and BertForTokenClassification: what they promise beyond equalling transformers (see test_golden.py)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from parity import largest
from tiny_bert import CONFIG, ROUNDING, example, gradients, tagger

from minitl.models import BertConfig, BertForTokenClassification, BertModel
from minitl.models.outputs import TokenClassifierOutput

# -- what comes out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shapes_and_dtypes_of_the_tagger(dtype: str) -> None:
    inputs = example()
    out = tagger(dtype=dtype)(**inputs.arguments(), output_hidden_states=True, output_attentions=True)
    sentences, length = inputs.input_ids.shape
    assert out.logits.shape == (sentences, length, 4)
    assert out.loss.shape == ()
    assert out.label_count == (inputs.labels != -100).sum()
    assert [state.shape for state in out.hidden_states] == [(sentences, length, 12)] * 3
    assert [weights.shape for weights in out.attentions] == [(sentences, 3, length, length)] * 2
    everything = (out.logits, out.loss, *out.hidden_states, *out.attentions)
    assert all(tensor.dtype == dtype for tensor in everything)


def test_shapes_of_the_encoder() -> None:
    inputs = example()
    arguments = inputs.arguments(labels=False)
    out = BertModel(CONFIG)(**arguments, output_hidden_states=True, output_attentions=True)
    sentences, length = inputs.input_ids.shape
    assert out.last_hidden_state.shape == (sentences, length, 12)
    assert out.pooler_output.shape == (sentences, 12)
    assert len(out.hidden_states) == 3
    assert len(out.attentions) == 2
    np.testing.assert_array_equal(out.hidden_states[-1].numpy(), out.last_hidden_state.numpy())
    assert BertModel(CONFIG, add_pooler=False)(**arguments).pooler_output is None


def test_nothing_that_was_not_asked_for() -> None:
    out = tagger()(**example().arguments(labels=False))
    assert out == TokenClassifierOutput(out.logits, loss=None, label_count=0, hidden_states=None, attentions=None)


def test_attention_weights_are_a_mean_over_the_kept_keys() -> None:
    inputs = example()
    for weights in tagger()(**inputs.arguments(), output_attentions=True).attentions:
        p = weights.numpy()
        assert (p >= 0).all()
        expected = np.broadcast_to(inputs.kept[:, None, :], p.shape[:3]).astype(np.float64)
        np.testing.assert_allclose(p.sum(axis=3), expected, atol=ROUNDING)


def test_the_pooler_takes_the_first_kept_token() -> None:
    inputs = example()
    model = BertModel(CONFIG, dtype="float64").eval()
    out = model(**inputs.arguments(labels=False))
    first = inputs.kept.argmax(axis=1)
    assert first.tolist() == [0, 0, 3, 0, 1, 10]
    states = out.last_hidden_state.numpy()[np.arange(len(first)), first]
    expected = np.tanh(states @ model.pooler.dense.weight.numpy().T + model.pooler.dense.bias.numpy())
    np.testing.assert_allclose(out.pooler_output.numpy(), expected, atol=ROUNDING)


def test_the_loss_is_the_mean_over_the_scored_labels() -> None:
    inputs = example()
    out = tagger()(**inputs.arguments())
    scored = inputs.labels != -100
    logits = out.logits.numpy()[scored]
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -log_p[np.arange(len(logits)), inputs.labels[scored]].mean()
    assert out.loss.item() == pytest.approx(expected, abs=ROUNDING)


def test_without_a_scored_label_the_loss_is_0_and_so_is_every_gradient() -> None:
    inputs, model = example(), tagger()
    arguments = inputs.arguments() | {"labels": np.full_like(inputs.labels, -100)}
    out = model(**arguments)
    assert out.loss.item() == 0.0
    assert out.label_count == 0
    for name, gradient in gradients(model, out.loss).items():
        assert not gradient.any(), name


# -- configuration -----------------------------------------------------------------------------------------------------


def test_unknown_activations_are_refused() -> None:
    with pytest.raises(ValueError, match="hidden_act 'silu' is not known; known are gelu"):
        replace(CONFIG, hidden_act="silu")
    config = replace(CONFIG)
    config.hidden_act = "silu"
    for model_class in (BertModel, BertForTokenClassification):
        with pytest.raises(ValueError, match="hidden_act 'silu' is not known"):
            model_class(config)


def test_activations_differ_where_they_should() -> None:
    found = {}
    for activation in ("gelu", "gelu_python", "gelu_new", "gelu_pytorch_tanh", "relu"):
        found[activation] = tagger(replace(CONFIG, hidden_act=activation))(**example().arguments()).logits.numpy()
    np.testing.assert_array_equal(found["gelu"], found["gelu_python"])
    np.testing.assert_array_equal(found["gelu_new"], found["gelu_pytorch_tanh"])
    assert 1e-5 < largest(found["gelu"] - found["gelu_new"]) < 1e-2  # the tanh form is an approximation good to 5e-4
    assert largest(found["gelu"] - found["relu"]) > 1e-2


@pytest.mark.parametrize(
    ("arguments", "classes"),
    [({}, 2), ({"num_labels": 7}, 7), ({"id2label": {0: "O", 1: "B-PER", 2: "I-PER"}}, 3)],
)
def test_the_number_of_classes(arguments: dict[str, Any], classes: int) -> None:
    sizes = {"vocab_size": 10, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = BertForTokenClassification(BertConfig(**sizes, intermediate_size=4, **arguments))
    assert model.classifier.weight.shape == (classes, 4)
    assert model(np.ones((1, 2), np.int64)).logits.shape == (1, 2, classes)


def test_the_row_of_the_padding_id_gets_no_gradient_though_the_token_is_kept() -> None:
    ids = np.array([[5, 6, 5]])
    name = "bert.embeddings.word_embeddings.weight"
    for padding_id, trained in ((5, [6]), (None, [5, 6])):
        model = tagger(replace(CONFIG, pad_token_id=padding_id))
        gradient = gradients(model, model(ids, labels=[[0, 1, 2]]).loss)[name]
        assert np.flatnonzero(gradient.any(axis=1)).tolist() == trained
