"""Frozen parameters keep their bits, get no gradient and no optimizer state; everything else is trained."""

from pathlib import Path

import numpy as np
import pytest
from tiny import packed_batches, tiny_config, write_tiny_data, write_tiny_model

from minitl import optim, transfer
from minitl.errors import MinitlError
from minitl.models import BertForTokenClassification
from minitl.training import train_step

FROZEN = {
    "nothing": (),
    "embeddings": ("bert.embeddings.",),
    "0": ("bert.embeddings.",),
    "1": ("bert.embeddings.", "bert.encoder.layer.0."),
    "2": ("bert.embeddings.", "bert.encoder."),
    "encoder": ("bert.",),
}


@pytest.mark.parametrize("what", FROZEN)
def test_exactly_the_frozen_part_keeps_its_bits(what: str, tmp_path: Path) -> None:
    model_folder, data = write_tiny_model(tmp_path / "model"), write_tiny_data(tmp_path / "data")
    labels = ["O", "B-LOC", "B-ORG", "B-PER"]
    model = BertForTokenClassification.from_pretrained(model_folder, id2label=labels, new_head=True)
    report = transfer.freeze(model, what)
    frozen = {name for name, _ in model.named_parameters() if name.startswith(FROZEN[what])} if FROZEN[what] else set()
    before = {name: values.copy() for name, values in model.state_dict().items()}
    optimizer = optim.AdamW(optim.decay_groups(model, 0.01), lr=1e-2)
    train_step(model.train(), packed_batches(model_folder, data, 100), optimizer)
    for name, parameter in model.named_parameters():
        changed = not np.array_equal(before[name], parameter.numpy())
        # a key bias shifts all scores of a row alike: its gradient is zero but for rounding, so it need not move
        assert not (changed and name in frozen), name
        assert changed or name in frozen or name.endswith("key.bias"), name
        assert parameter.requires_grad == (name not in frozen)
        assert (parameter._slot is None) == (name in frozen)
    assert report.frozen == sum(before[name].size for name in frozen)
    assert report.trained + report.frozen == sum(values.size for values in before.values())
    assert f"{report.frozen:,} frozen" in str(report)


def test_freezing_again_starts_anew() -> None:
    model = BertForTokenClassification(tiny_config())
    transfer.freeze(model, "encoder")
    assert transfer.freeze(model, "nothing").frozen == 0


@pytest.mark.parametrize(
    ("what", "message"), [("head", "takes nothing"), ("-1", "takes"), ("3", "has 2"), ("", "takes")]
)
def test_other_words_are_refused(what: str, message: str) -> None:
    with pytest.raises(MinitlError, match=message):
        transfer.freeze(BertForTokenClassification(tiny_config()), what)
