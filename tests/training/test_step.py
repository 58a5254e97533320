"""One step over several batches equals one over their union; a step without labels leaves everything alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import packed_batches, write_tiny_data, write_tiny_model

from minitl import optim
from minitl.errors import MinitlError
from minitl.models import BertForTokenClassification
from minitl.training import train_step


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("step")
    return write_tiny_model(root / "model"), write_tiny_data(root / "data")


def load(folder: Path) -> BertForTokenClassification:
    labels = ["O", "B-LOC", "B-ORG", "B-PER"]
    model = BertForTokenClassification.from_pretrained(folder, id2label=labels, dtype="float64", new_head=True)
    return model.eval()  # no dropout: the split must not matter


def state_after(folder: Path, data: Path, batch_size: int) -> tuple[dict[str, np.ndarray], float, float]:
    import minitl

    minitl.manual_seed(3)  # the new head
    model = load(folder)
    optimizer = optim.AdamW(optim.decay_groups(model, 0.01), lr=1e-2)
    schedule = optim.Schedule(optimizer, total=4)
    for _ in range(3):
        result = train_step(model, packed_batches(folder, data, batch_size), optimizer, schedule=schedule)
    return {name: values.copy() for name, values in model.state_dict().items()}, result.loss, result.gradient_norm


def test_accumulated_batches_equal_one_batch(folders: tuple[Path, Path]) -> None:
    whole, loss, norm = state_after(*folders, batch_size=100)
    for batch_size in (1, 5):
        split, split_loss, split_norm = state_after(*folders, batch_size=batch_size)
        # float64 rounds sums at 1e-16 of their size; three AdamW steps of 1e-2 divide by sqrt(v), which magnifies it
        assert split_loss == pytest.approx(loss, abs=1e-12)
        assert split_norm == pytest.approx(norm, rel=1e-10)
        for name, values in whole.items():
            np.testing.assert_allclose(split[name], values, rtol=0, atol=1e-10, err_msg=name)


def test_equal_weights_for_batches_would_be_another_result(folders: tuple[Path, Path]) -> None:
    """The control of the test above: the mean of means differs, since the batches have different numbers of labels."""
    model = load(folders[0])
    packed = packed_batches(*folders, batch_size=5)
    counts = [model(batch).label_count for batch in packed]
    losses = [model(batch).loss.item() for batch in packed]
    assert len(set(counts)) > 1
    weighted = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    assert abs(np.mean(losses) - weighted) > 1e-6


def test_a_step_without_labels_is_skipped(folders: tuple[Path, Path]) -> None:
    model = load(folders[0])
    optimizer = optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    before = {name: values.copy() for name, values in model.state_dict().items()}
    (batch,) = packed_batches(*folders, batch_size=100)
    unlabelled = replace(batch, labels=np.full_like(batch.labels, -100))
    result = train_step(model, [unlabelled], optimizer)
    assert result.skipped
    assert result.label_count == 0
    assert result.token_count == batch.token_count
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(values, before[name])
    assert not train_step(model, [batch, unlabelled], optimizer).skipped


def test_gradients_are_forgotten_and_the_schedule_moves(folders: tuple[Path, Path]) -> None:
    model = load(folders[0])
    optimizer = optim.AdamW(model.parameters(), lr=1.0)
    schedule = optim.Schedule(optimizer, total=2)
    train_step(model, packed_batches(*folders, batch_size=100), optimizer, schedule=schedule)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert optimizer.groups[0].lr == 0.5


def test_batches_must_have_labels(folders: tuple[Path, Path]) -> None:
    model = load(folders[0])
    optimizer = optim.AdamW(model.parameters())
    (batch,) = packed_batches(*folders, batch_size=100)
    for wrong in ([], [batch, replace(batch, labels=None)]):
        with pytest.raises(ValueError, match="labels in every batch"):
            train_step(model, wrong, optimizer)


def test_a_diverged_step_is_not_taken(folders: tuple[Path, Path]) -> None:
    model = load(folders[0])
    model.classifier.bias.copy_(np.full(4, np.nan))
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    before = model.bert.embeddings.word_embeddings.weight.numpy().copy()
    with pytest.raises(MinitlError, match="training diverged: the loss is nan"):
        train_step(model, packed_batches(*folders, batch_size=100), optimizer)
    np.testing.assert_array_equal(model.bert.embeddings.word_embeddings.weight.numpy(), before)


def test_predicting_leaves_every_modules_mode_alone(folders: tuple[Path, Path]) -> None:
    model = load(folders[0]).train()
    model.bert.eval()
    model.predict_logits(packed_batches(*folders, batch_size=100)[0])
    assert model.training
    assert not model.bert.training
    assert not model.bert.encoder.layer[0].training
