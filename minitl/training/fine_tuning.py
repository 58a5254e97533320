"""A whole run: data, model, training, scores, and a folder that holds all of it.

::

    run.json             settings, environment, fingerprints, results (manifest.py)
    log.jsonl            a line for each step and evaluation; events.out.tfevents.* the same for TensorBoard
    checkpoints/         where training goes on after an interruption
    config.json, model.safetensors, tokenizer files: the best state, as minitl and transformers load it
    metrics.json         scores of dev and test
    predictions.conll    test: word, gold tag, predicted tag
    curves.svg           loss, learning rate and score over the steps
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from minitl import atomic_file, random
from minitl.errors import CheckpointError, MinitlError
from minitl.metrics import accounting, entity_scores, token_scores
from minitl.models.loss_options import LossOptions, class_weights
from minitl.models.pretrained import require_tokenizer
from minitl.models.token_classifier import BertForTokenClassification
from minitl.precision import precision
from minitl.text.batch import PackedBatch
from minitl.text.batching import predict_tags
from minitl.text.conll import Sentence, write_conll
from minitl.text.dataset import Dataset, load_corpus, read_folder
from minitl.text.encoding import encode_dataset, excluded_entities
from minitl.training import manifest
from minitl.training.folder_lock import folder_lock
from minitl.training.journal import LOG_FILE
from minitl.training.run_settings import RunSettings
from minitl.training.trainer import Trainer, TrainingResult
from minitl.transfer.freezing import freeze
from minitl.viz.curves import Curve, Panel, draw

PARTS = ("train", "dev", "test")


class FineTuning:
    """Fine-tunes a BERT for named entities, and leaves a folder that tells everything about it.

    Args:
        settings: what is asked for.
        say: called with lines for people.

    Attributes:
        data: train, dev and test in IOB2.
        model: with a new head for the labels of the data.
        encoded: by part.
        identity: what a checkpoint must have been made of, to be resumed.

    Raises:
        MinitlError: data, model, device or settings cannot be used; before anything is written.
    """

    def __init__(self, settings: RunSettings, say: Callable[[str], None] | None = None) -> None:
        self.settings = settings
        self._say = say or (lambda line: None)
        self.data: Dataset = load_corpus() if settings.data is None else read_folder(settings.data)
        self._tell(*self.data.notes)
        random.manual_seed(settings.training.seed)
        self.model = BertForTokenClassification.from_pretrained(
            settings.model, id2label=self.data.labels.id2label, new_head=True
        )
        self._tell(str(self.model.load_report), str(freeze(self.model, settings.freeze)))
        self.initial_sha256 = manifest.weights_sha256(self.model.state_dict())
        self.model.to(settings.device)
        tokenizer = require_tokenizer(self.model)
        limit = min(settings.max_length, self.model.config.max_position_embeddings)
        ids = self.data.labels.ids
        pieces: Any = settings.pieces
        self.encoded = {
            part: encode_dataset(getattr(self.data, part), tokenizer, ids, limit, pieces=pieces) for part in PARTS
        }
        self._tell(*(f"{part}: {encoded.report}" for part, encoded in self.encoded.items()))
        self.loss_options = self._loss_options()
        asked = settings.as_dict()
        del asked["data"], asked["model"], asked["training"]  # paths may change, what they hold may not
        self.identity = {
            "options": asked,
            "labels": list(self.data.labels),
            "data": {part: manifest.data_sha256(getattr(self.data, part)) for part in PARTS},
            "initial_weights": self.initial_sha256,
        }

    def run(self, folder: Path, *, resume: bool = False, strict_resume: bool = False) -> dict[str, Any]:
        """Train, score and write.

        Args:
            folder: an existing folder, empty unless ``resume``.
            resume: go on from the newest whole checkpoint, if there is one.
            strict_resume: whether a damaged checkpoint is an error, even if one before it is whole.

        Returns:
            The results, as ``run.json`` holds them.

        Raises:
            InterruptedRunError: a signal came; ``run(folder, resume=True)`` goes on.
            MinitlError: the training diverged, or the folder cannot be used.
        """
        settings = self.settings
        with folder_lock(folder), precision(settings.precision, device=settings.device) as policy:
            removed = atomic_file.remove_leftovers(folder)
            if removed:
                self._tell(f"removed what an interrupted run has left: {', '.join(removed)}")
            self.identity["precision"] = policy.compute
            trainer = Trainer(
                self.model,
                self.encoded["train"],
                settings.training,
                evaluate=self._dev_scores,
                loss_options=self.loss_options,
                folder=folder,
                sentences=self.data.train,
                identity=self.identity,
                say=self._say,
                hold_lock=False,
            )
            document = self._begin(folder, trainer, resume, strict_resume)
            try:
                return self._finish(folder, document, trainer.run())
            except BaseException as error:
                reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
                with suppress(MinitlError):  # a full disk, which is what is being told already
                    manifest.write_manifest(folder, {**document, "status": f"stopped: {reason}"})
                raise

    # -- the parts of a run --------------------------------------------------------------------------------------------

    def _begin(self, folder: Path, trainer: Trainer, resume: bool, strict: bool) -> dict[str, Any]:
        """Restore, if there is something, and write the manifest; return what it holds."""
        now = manifest.environment(self.settings.device)
        before: Mapping[str, float] | None = None
        if resume and (folder / manifest.MANIFEST).exists():
            then = manifest.read_manifest(folder)
            self._tell(*manifest.environment_notes(then["environment"], now))
            self._tell(*trainer.restore(strict=strict))
            before = then.get("test_before_training")
        if trainer.state.step:
            self._tell(f"goes on after step {trainer.state.step} of {trainer.total}")
        if before is None:
            before = self.scores("test")
            self._tell(f"before training: test entity F1 {before['f1']:.3f}")
        document = {
            "status": "running",
            "settings": self.settings.as_dict(),
            "environment": now,
            "identity": self.identity,
            "steps": trainer.total,
            "test_before_training": before,
        }
        manifest.write_manifest(folder, document)
        return document

    def _finish(self, folder: Path, document: dict[str, Any], result: TrainingResult) -> dict[str, Any]:
        """Score the best state, and write model, scores, predictions and curves."""
        self.model.save_pretrained(folder)
        gold, predicted = _tags(self.data.test), self.model.predict_tags(self.encoded["test"])
        table = entity_scores(gold, predicted)
        lost = accounting(gold, predicted, excluded_entities(self.data.test, self.encoded["test"]))
        self._tell(f"\ntest\n{table}\n\n{lost}\n")
        scores = {"dev": self.scores("dev"), "test": _flat_scores(gold, predicted)}
        atomic_file.write_bytes(folder / "metrics.json", json.dumps(scores, indent=2).encode() + b"\n")
        write_conll(folder / "predictions.conll", self.data.test, predicted)
        atomic_file.write_bytes(folder / "curves.svg", curves(folder / LOG_FILE, folder.name).encode())
        results = {
            **vars(result),
            "scores": scores,
            "final_weights": manifest.weights_sha256(self.model.state_dict()),
        }
        manifest.write_manifest(folder, {**document, "status": "done", "results": results})
        return results

    def scores(self, part: str) -> dict[str, float]:
        """Return precision, recall and F1 of the entities of a part, and the accuracy of its words."""
        return _flat_scores(_tags(getattr(self.data, part)), self.model.predict_tags(self.encoded[part]))

    def _dev_scores(self, check: Callable[[], None]) -> dict[str, float]:
        def logits_of(batch: PackedBatch) -> Any:
            check()
            return self.model.predict_logits(batch)

        return _flat_scores(_tags(self.data.dev), predict_tags(self.encoded["dev"], self.data.labels, logits_of))

    def _loss_options(self) -> LossOptions:
        settings, windows = self.settings, [one for several in self.encoded["train"].windows for one in several]
        labels = [window.labels for window in windows if window.labels is not None]
        try:
            weights = class_weights(settings.class_weights, list(self.data.labels), labels)
            return LossOptions(weights, settings.label_smoothing, settings.focal_gamma)
        except ValueError as error:
            raise MinitlError(str(error)) from None

    def _tell(self, *lines: str) -> None:
        for line in lines:
            self._say(line)


def _tags(sentences: Sequence[Sentence]) -> list[tuple[str, ...]]:
    return [sentence.tags or () for sentence in sentences]


def _flat_scores(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    micro = entity_scores(gold, predicted).micro
    accuracy = token_scores(gold, predicted).accuracy
    return {"f1": micro.f1, "precision": micro.precision, "recall": micro.recall, "accuracy": accuracy}


def curves(log: Path, title: str) -> str:
    """Return an SVG picture of a run's ``log.jsonl``."""
    try:
        records = [json.loads(line) for line in log.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{log}: cannot be read as a log: {error}") from None
    steps = [record for record in records if "loss" in record and "skipped" not in record]
    evaluations = [record for record in records if "evaluation" in record]
    at = [record["step"] for record in steps]
    panels = [
        Panel("training loss", [Curve("loss", at, [float(record["loss"]) for record in steps])]),
        Panel(
            "dev scores",
            [
                Curve(
                    name,
                    [record["step"] for record in evaluations],
                    [float(record["evaluation"][name]) for record in evaluations],
                    markers=True,
                )
                for name in ("f1", "precision", "recall")
            ],
        ),
        Panel("learning rate", [Curve("lr", at, [float(record["lr"]) for record in steps])]),
    ]
    return draw(panels, title)


def reproduce_settings(path: Path) -> tuple[RunSettings, dict[str, Any]]:
    """Return the settings and the whole manifest of a run that is to be repeated.

    Raises:
        MinitlError: the file is no manifest of a run that has ended.
    """
    document = manifest.read_manifest(path)
    if document.get("status") != "done":
        raise MinitlError(f"{path}: the run is {document.get('status')!r}; only one that is done can be repeated")
    return RunSettings.from_dict(document["settings"]), document
