"""What a checkpoint takes from a training, and gives back to it: everything that decides what comes next."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minitl.errors import CheckpointError, MinitlError
from minitl.models.token_classifier import BertForTokenClassification
from minitl.optim import Optimizer
from minitl.random import default_generator
from minitl.training.best import BestState
from minitl.training.checkpoint import Checkpoint
from minitl.training.step import DivergedError
from minitl.training.training_state import TrainingState, differences


def take_snapshot(
    model: BertForTokenClassification,
    optimizer: Optimizer,
    best: BestState,
    state: TrainingState,
    identity: Mapping[str, Any],
) -> Checkpoint:
    """Return a checkpoint of a training as it stands.

    Raises:
        DivergedError: parameters or moments are not finite; such are not saved.
    """
    arrays = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    if state.best_step not in (None, state.step):
        arrays["best"] = best.state_dict()
    for part, noun in (("model", "parameters"), ("optimizer", "moments"), ("best", "best parameters")):
        broken = [name for name, values in arrays.get(part, {}).items() if not np.isfinite(values).all()]
        if broken:
            raise DivergedError(
                f"after step {state.step} the {noun} {', '.join(broken[:5])} hold NaN or infinity; they were not "
                "saved, the checkpoint before is whole; lower the learning rate"
            )
    generator = default_generator()
    document = {
        "identity": dict(identity),
        "generator": {"seed": generator.seed, "call": generator.call},
        "training": state.as_dict(),
    }
    return Checkpoint(state.step, arrays, document)


def restore_snapshot(
    checkpoint: Checkpoint,
    model: BertForTokenClassification,
    optimizer: Optimizer,
    best: BestState,
    identity: Mapping[str, Any],
    folder: Path | None,
) -> TrainingState:
    """Bring model, optimizer, generator and best state to where a checkpoint was taken, and return the state.

    Raises:
        CheckpointError: it is of another training; the message begins with ``folder`` and lists what differs.
    """
    document, arrays = checkpoint.state, checkpoint.arrays
    different = differences(identity, document.get("identity", {}))
    if different:
        raise CheckpointError(f"{folder}: its checkpoints are of another training:\n  " + "\n  ".join(different))
    state = TrainingState.from_dict(document["training"])
    try:
        model.load_state_dict(arrays["model"])
        optimizer.load_state_dict(arrays["optimizer"])
    except ValueError as error:
        raise CheckpointError(f"{folder}: the checkpoint of step {state.step} does not fit: {error}") from None
    generator = default_generator()
    generator.seed, generator.call = document["generator"]["seed"], document["generator"]["call"]
    if state.best_score is not None:
        best.load(state.best_score, state.best_step, dict(arrays.get("best") or arrays["model"]))
    return state


def check_free_space(folder: Path, model: BertForTokenClassification) -> None:
    """Raise a MinitlError if the disk has no room for two checkpoints and the model, or cannot be used."""
    one = 4 * sum(parameter.array.nbytes for parameter in model.parameters())  # model, two moments, best
    needed = 2 * one + 2**20
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise MinitlError(f"{folder}: cannot be used ({error.strerror})") from None
    if free < needed:
        raise MinitlError(
            f"{folder}: {free / 2**20:,.1f} MB are free, but two checkpoints and the model need "
            f"{needed / 2**20:,.1f} MB; free some space, or name an output folder on another disk"
        )
