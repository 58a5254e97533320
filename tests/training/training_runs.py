"""A tiny training whose every step can be looked at, for the tests of this folder."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_config, write_tiny_data, write_tiny_model

import minitl
from minitl.errors import InterruptedRunError
from minitl.metrics import entity_scores
from minitl.models import BertForTokenClassification, require_tokenizer
from minitl.text import encode_dataset, read_folder
from minitl.training import Trainer, TrainingSettings
from minitl.training.journal import LOG_FILE, TIME_FIELDS

EPOCHS = 30 if os.environ.get("MINITL_EVERY_STEP") else 4  # of 4 steps; 120 steps are one of the long checks
SETTINGS = TrainingSettings(
    epochs=EPOCHS, batch_size=3, accumulation=2, lr=5e-3, evaluate_every=3, keep_checkpoints=2, checkpoint_every=2
)


class Workshop:
    """Data and models for trainings, made once."""

    def __init__(self, folder: Path, sentences: int = 20) -> None:
        self.data = read_folder(write_tiny_data(folder / "data", sentences))
        labels = self.data.labels.id2label
        self.model_folder = write_tiny_model(folder / "model", id2label=labels)
        tokenizer = require_tokenizer(BertForTokenClassification.from_pretrained(self.model_folder))
        self.train = encode_dataset(self.data.train, tokenizer, self.data.labels.ids, 32)
        self.dev = encode_dataset(self.data.dev, tokenizer, self.data.labels.ids, 32)

    def model(self) -> BertForTokenClassification:
        minitl.manual_seed(7)
        return BertForTokenClassification(tiny_config(id2label=self.data.labels.id2label))

    def trainer(
        self,
        folder: Path | None = None,
        settings: TrainingSettings = SETTINGS,
        kind: type[Trainer] = Trainer,
        **more: Any,
    ) -> Trainer:
        """A trainer of a new model that scores the dev sentences."""
        model = self.model()

        def evaluate(check: Callable[[], None]) -> Mapping[str, float]:
            check()
            gold = [sentence.tags or () for sentence in self.data.dev]
            return {"f1": entity_scores(gold, model.predict_tags(self.dev)).f1}

        if folder is not None:
            folder.mkdir(exist_ok=True)
        options = {"evaluate": evaluate, "sentences": self.data.train, **more}
        return kind(model, self.train, settings, folder=folder, **options)


class StoppedAt(Trainer):
    """Behaves as if a signal came right after step ``stop`` (several: one after the other)."""

    stop = 0

    def _after_step(self) -> None:
        if self.state.step == self.stop:
            self._interruption.signal_number = signal.SIGTERM
        super()._after_step()


def stopped_at(step: int) -> type[Trainer]:
    return type("StoppedAtOne", (StoppedAt,), {"stop": step})


def run_in_parts(workshop: Workshop, folder: Path, stops: list[int], settings: TrainingSettings = SETTINGS) -> Trainer:
    """Run a training that is stopped after each of some steps, each part in a new trainer."""
    for stop in stops:
        trainer = workshop.trainer(folder, settings, stopped_at(stop))
        trainer.restore(strict=True)
        with pytest.raises(InterruptedRunError) as caught:
            trainer.run()
        assert caught.value.signal_number == signal.SIGTERM
    trainer = workshop.trainer(folder, settings)
    trainer.restore(strict=True)
    trainer.run()
    return trainer


def outcome(trainer: Trainer) -> dict[str, bytes]:
    """Everything a run leaves, as bytes: parameters, optimizer, state, log without times, the generator."""
    arrays = {f"model.{name}": values for name, values in trainer.model.state_dict().items()}
    arrays |= {f"optimizer.{name}": values for name, values in trainer.optimizer.state_dict().items()}
    left = {name: np.ascontiguousarray(values).tobytes() for name, values in arrays.items()}
    state = trainer.state.as_dict()
    del state["log_lengths"]  # in bytes, and times have not always as many digits
    left["state"] = json.dumps([state, vars(minitl.random.default_generator())]).encode()
    if trainer.folder is not None:
        left["log"] = b"\n".join(log_without_times(trainer.folder))
    return left


def log_without_times(folder: Path) -> list[bytes]:
    lines = []
    for line in (folder / LOG_FILE).read_bytes().splitlines():
        record = json.loads(line)
        lines.append(json.dumps({key: value for key, value in record.items() if key not in TIME_FIELDS}).encode())
    return lines
