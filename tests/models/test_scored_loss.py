"""``model.loss``: the last layer computed for scored tokens only gives the loss, gradients and masks of the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from parity import Arrays, largest
from tiny_bert import CONFIG, ROUNDING, gradients, tagger

import minitl
from minitl import optim
from minitl.models import BertForTokenClassification, PackedBatch
from minitl.models.bert import BertEncoder
from minitl.random import default_generator
from minitl.training import train_step

RATES = {"hidden_dropout_prob": 0.25, "attention_probs_dropout_prob": 0.4, "classifier_dropout": 0.5}
LENGTHS = (5, 1, 7, 3)


def batch_of(scored: Callable[[int], bool], lengths: tuple[int, ...] = LENGTHS) -> PackedBatch:
    """Sentences in which token ``t`` of the batch has a label where ``scored(t)``."""
    random = np.random.default_rng(4)
    count = sum(lengths)
    mask = np.array([scored(token) for token in range(count)])
    return PackedBatch(
        input_ids=random.integers(1, CONFIG.vocab_size, count),
        positions=np.concatenate([np.arange(length) for length in lengths]),
        segments=random.integers(0, 2, count),
        cu_seqlens=np.cumsum([0, *lengths]),
        labels=np.where(mask, random.integers(0, CONFIG.num_labels, count), -100),
    )


BATCHES = {
    "some": batch_of(lambda token: token % 4 != 1),
    "one": batch_of(lambda token: token == 6),
    "last": batch_of(lambda token: token == sum(LENGTHS) - 1),
    "none": batch_of(lambda token: False),
    "all": batch_of(lambda token: True),
    "one sentence": batch_of(lambda token: 0 < token < 5, (6,)),
    "one token": batch_of(lambda token: True, (1,)),
}


def model_of(dtype: str = "float64", **changes: Any) -> BertForTokenClassification:
    return tagger(replace(CONFIG, **RATES, **changes), dtype).train()


def run(model: Any, loss_of: Callable[[PackedBatch], Any], batch: PackedBatch) -> tuple[float, int, int, Arrays]:
    """The loss, its labels, how often the generator was called, and all gradients."""
    minitl.manual_seed(9)
    out = loss_of(batch)
    calls = default_generator().call
    return out.loss.item(), out.label_count, calls, gradients(model, out.loss)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("hidden_act", ["gelu", "relu"])
@pytest.mark.parametrize("name", BATCHES)
def test_loss_and_gradients_are_those_of_all_rows(name: str, hidden_act: str, layers: int) -> None:
    """Sums over rows run over fewer of them; nothing else differs. The dropout's masks would show at once."""
    model = model_of(num_hidden_layers=layers, hidden_act=hidden_act)
    loss, count, calls, grads = run(model, model, BATCHES[name])
    scored_loss, scored_count, scored_calls, scored_grads = run(model, model.loss, BATCHES[name])
    assert scored_count == count
    assert scored_calls == calls == 2 + 3 * layers  # embeddings, three a layer, classifier
    assert abs(scored_loss - loss) <= ROUNDING
    assert scored_grads.keys() == grads.keys()
    for parameter, gradient in grads.items():
        assert largest(scored_grads[parameter] - gradient) <= ROUNDING, parameter
    assert (largest(grads["classifier.weight"]) > 0.01) == (count > 0)  # or nothing has been compared


def test_nothing_scored_is_exactly_zero() -> None:
    model = model_of()
    loss, count, _, grads = run(model, model.loss, BATCHES["none"])
    assert (loss, count) == (0.0, 0)
    assert all(not gradient.any() for gradient in grads.values())


def test_other_row_numbers_would_be_another_result() -> None:
    """The control: with the masks of the first rows, as without ``rows`` in the dropouts, the loss is another."""
    model, batch = model_of(), BATCHES["some"]
    scored = np.flatnonzero(batch.labels != -100)
    minitl.manual_seed(9)
    right = model.loss(batch).loss.item()
    minitl.manual_seed(9)
    state = model.bert.hidden_states(batch, rows=scored)[-1]
    logits = model.classifier(model.dropout(state))
    wrong = minitl.ops.cross_entropy(logits, batch.labels[scored]).item()
    assert abs(right - wrong) > 1e-3


@pytest.mark.parametrize(("name", "rows"), [("some", 12), ("none", 0), ("all", None)])
def test_only_the_last_layer_is_computed_for_rows(name: str, rows: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all tokens are scored nothing is gathered."""
    seen: list[Any] = []
    forward = BertEncoder.forward

    def noting(self: Any, x: Any, cu_seqlens: Any, weights_out: Any, rows: Any = None) -> Any:
        states = forward(self, x, cu_seqlens, weights_out, rows)
        seen.append((None if rows is None else len(rows), [state.shape[0] for state in states]))
        return states

    monkeypatch.setattr(BertEncoder, "forward", noting)
    batch = BATCHES[name]
    model_of().loss(batch)
    tokens = batch.token_count
    assert seen == [(rows, [tokens, tokens, tokens if rows is None else rows])]


def test_the_kernels_are_told_the_numbers_of_the_rows(strict_device: str) -> None:
    """On a device whose arrays are no NumPy arrays, with every bit of the host's result."""
    results = [
        run(model, model.loss, BATCHES["some"])
        for model in (model_of("float32").to(device) for device in ("cpu", strict_device))
    ]
    assert results[0][:3] == results[1][:3]
    for name, gradient in results[0][3].items():
        np.testing.assert_array_equal(results[1][3][name], gradient, err_msg=name)


def test_a_step_of_training_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And never asks for the logits of all rows."""
    model = model_of()
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    monkeypatch.setattr(type(model), "forward", None)
    minitl.manual_seed(9)
    result = train_step(model, [BATCHES["some"], BATCHES["none"], BATCHES["all"]], optimizer)
    assert result.label_count == 12 + 16
    assert result.loss > 0


def test_wrong_batches() -> None:
    model = model_of()
    with pytest.raises(ValueError, match="loss needs labels in the batch"):
        model.loss(replace(BATCHES["some"], labels=None))
    labels = np.full(16, 4)
    with pytest.raises(ValueError, match="label 4 in sentence 0, token 0"):
        model.loss(replace(BATCHES["some"], labels=labels))
    with pytest.raises(ValueError, match="token id 40"):
        model.loss(replace(BATCHES["some"], input_ids=np.full(16, 40)))
