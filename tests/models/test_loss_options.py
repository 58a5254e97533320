"""Weights of classes, smoothing and focal loss reach the training step, and batches still add up to one."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_bert import CONFIG, ROUNDING, example, gradients, tagger

from minitl import Tensor, ops, optim
from minitl.models import LossOptions
from minitl.models.loss_options import class_weights
from minitl.models.padding import pack
from minitl.text import PackedBatch
from minitl.training import train_step

WEIGHTS = np.array([0.1, 3.0, 0.0, 1.5])
OPTIONS = {
    "plain": LossOptions(),
    "weighted": LossOptions(WEIGHTS),
    "smoothed": LossOptions(WEIGHTS, label_smoothing=0.2),
    "focal": LossOptions(WEIGHTS, focal_gamma=2.0),
}


def parts(batch: PackedBatch) -> list[PackedBatch]:
    """The sentences of a batch, each a batch of its own."""
    cuts = [slice(begin, end) for begin, end in zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True)]
    return [
        PackedBatch(
            batch.input_ids[cut],
            batch.positions[cut],
            batch.segments[cut],
            np.array([0, cut.stop - cut.start]),
            None if batch.labels is None else batch.labels[cut],
        )
        for cut in cuts
    ]


def whole() -> PackedBatch:
    inputs = example()
    packed, _ = pack(inputs.input_ids, inputs.attention_mask, inputs.token_type_ids, inputs.labels)
    return packed


@pytest.mark.parametrize("kind", OPTIONS)
def test_batches_add_up_to_one(kind: str) -> None:
    options, batch = OPTIONS[kind], whole()
    steps, models = [], []
    for batches in ([batch], parts(batch)):
        model = tagger()
        optimizer = optim.SGD(model.parameters(), lr=1.0)
        steps.append(train_step(model, batches, optimizer, loss_options=options, max_norm=1e9))
        models.append(model.state_dict())
    assert steps[0].loss == pytest.approx(steps[1].loss, rel=ROUNDING)
    assert steps[0].label_count == steps[1].label_count
    for name, values in models[0].items():
        np.testing.assert_allclose(values, models[1][name], rtol=0, atol=10 * ROUNDING, err_msg=name)  # lr 1, norm > 1


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_loss_is_that_of_the_logits(kind: str) -> None:
    options, batch, model = OPTIONS[kind], whole(), tagger()
    assert batch.labels is not None
    found = model.loss(batch, options)
    expected = options.loss(model(batch).logits, batch.labels)
    assert found.loss.item() == pytest.approx(expected.item(), rel=ROUNDING)
    scored = batch.labels[batch.labels != ops.IGNORE_INDEX]
    assert found.weight == pytest.approx(len(scored) if kind == "plain" else WEIGHTS[scored].sum())
    assert gradients(model, found.loss).keys() == model.state_dict().keys()


def test_a_step_without_weight_is_skipped() -> None:
    batch, model = whole(), tagger()
    before = {name: values.copy() for name, values in model.state_dict().items()}
    optimizer = optim.AdamW(model.parameters(), lr=1.0, weight_decay=0.5)
    step = train_step(model, [batch], optimizer, loss_options=LossOptions(np.zeros(CONFIG.num_labels)))
    assert step.skipped
    assert step.label_count > 0
    assert all(np.array_equal(values, before[name]) for name, values in model.state_dict().items())


def test_weights_by_name() -> None:
    labels = [np.array([0, 0, 0, -100]), np.array([1, -100])]
    assert class_weights("none", ["O", "B-X", "I-X"], labels) is None
    balanced = class_weights("balanced", ["O", "B-X", "I-X"], labels)
    assert balanced is not None
    np.testing.assert_allclose(balanced, [4 / (2 * 3), 4 / 2, 1.0])
    np.testing.assert_array_equal(class_weights({"B-X": 2.5}, ["O", "B-X"], labels), [1.0, 2.5])
    for wrong, message in {"heavy": "not 'heavy'", "B-Y": "weights for B-Y"}.items():
        with pytest.raises(ValueError, match=message):
            class_weights(wrong if wrong == "heavy" else {wrong: 1.0}, ["O", "B-X"], labels)
    with pytest.raises(ValueError, match="not negative"):
        class_weights({"O": -1.0}, ["O"], labels)


@pytest.mark.parametrize(
    "options", [{"label_smoothing": 1.0}, {"focal_gamma": -1.0}, {"label_smoothing": 0.1, "focal_gamma": 1.0}]
)
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"label_smoothing|focal_gamma|exclude"):
        LossOptions(**options)


def test_focal_loss_of_certain_and_hopeless_rows() -> None:
    logits = Tensor(np.array([[80.0, 0.0], [0.0, 80.0], [1e4, -1e4]]), requires_grad=True)
    loss = ops.focal_loss(logits, np.array([0, 0, 0]), gamma=2.0)
    assert loss.item() == pytest.approx(80 / 3)  # 0, 80 and 0: a row that is right costs nothing
    loss.backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), [[0, 0], [-1 / 3, 1 / 3], [0, 0]], atol=1e-30)
    with pytest.raises(ValueError, match="gamma must be finite"):
        ops.focal_loss(logits, np.array([0, 0, 0]), gamma=-1.0)
    assert ops.focal_loss(logits, np.full(3, -100), gamma=2.0).item() == 0
