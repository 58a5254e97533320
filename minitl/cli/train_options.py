"""The options of ``minitl train``, from the command line or a TOML file.

Their defaults are those of ``RunSettings`` and ``TrainingSettings``, which also check their ranges.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import click

from minitl.training.run_settings import RunSettings
from minitl.training.settings import TrainingSettings

TRAINING = tuple(field.name for field in fields(TrainingSettings))
RUN = tuple(field.name for field in fields(RunSettings) if field.name != "training")
OTHERS = ("output", "seeds")  # what a TOML file may hold besides
SETTINGS = (*fields(TrainingSettings), *fields(RunSettings))
DEFAULTS = {field.name: field.default for field in SETTINGS if field.default is not MISSING}


class Weights(click.ParamType[Any]):
    """``none``, ``balanced``, or ``LABEL=WEIGHT,LABEL=WEIGHT``; in TOML also a table."""

    name = "weights"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what RunSettings takes."""
        if isinstance(value, Mapping) or value in ("none", "balanced"):
            return value
        weights = {}
        for pair in str(value).split(","):
            label, _, weight = pair.rpartition("=")
            try:
                weights[label] = float(weight)
            except ValueError:
                label = ""
            if not label:
                self.fail(f"{value!r} is neither none, balanced nor LABEL=WEIGHT,LABEL=WEIGHT", param, ctx)
        return weights


# name -> type and help; an option without a default says in brackets what happens
OPTIONS: dict[str, tuple[Any, str]] = {
    "data": (str, "Folder with CoNLL files train, dev, test.  [default: the embedded corpus]"),
    "model": (str, "Folder or Hugging Face name of a BERT."),
    "max_length": (int, "Tokens the model reads at once."),
    "pieces": (click.Choice(["first", "all"]), "Which pieces of a word carry its label."),
    "freeze": (str, "nothing, embeddings, encoder, or a number of layers."),
    "class_weights": (Weights(), "none, balanced, or LABEL=WEIGHT,..."),
    "label_smoothing": (float, "Share of a target that is spread over all labels."),
    "focal_gamma": (float, "Of the focal loss; 0 for cross-entropy."),
    "device": (str, "cpu, or cuda for a GPU."),
    "precision": (click.Choice(["float32", "bfloat16", "tf32", "auto"]), "Of matrix products."),
    "epochs": (int, "Times through the training sentences."),
    "max_steps": (int, "End after this many steps.  [default: no such limit]"),
    "batch_size": (int, "Sentences of one forward pass."),
    "accumulation": (int, "Batches of one step."),
    "lr": (float, "Peak learning rate."),
    "weight_decay": (float, "Of weights and embeddings."),
    "warmup": (float, "Share of the steps with a rising learning rate."),
    "schedule": (click.Choice(["linear", "cosine", "constant"]), "How the learning rate goes on."),
    "max_norm": (float, "Largest norm of the gradient."),
    "seed": (int, "Of everything random."),
    "evaluate_every": (int, "Steps between evaluations, besides the one at each epoch's end.  [default: none]"),
    "patience": (int, "Evaluations without improvement that end training.  [default: never]"),
    "min_delta": (float, "Least improvement that counts for --patience."),
    "checkpoint_every": (int, "Steps between checkpoints.  [default: each evaluation]"),
    "keep_checkpoints": (int, "How many checkpoints stay."),
    "most_bad_steps": (int, "Steps in a row with NaN or infinity that end training."),
}


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each setting."""
    for name, (kind, text) in reversed(OPTIONS.items()):
        option = click.option(f"--{name.replace('_', '-')}", type=kind, default=DEFAULTS[name], help=text)
        command = option(command)
    return command


def read_config(context: click.Context, parameter: click.Parameter, path: str | None) -> str | None:
    """Let a TOML file give the defaults of all options that the command line leaves out."""
    if path is None:
        return None
    try:
        values = tomllib.loads(Path(path).read_bytes().decode("utf-8"))
    except OSError as error:
        raise click.BadParameter(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{path}: is not UTF-8 (byte offset {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise click.BadParameter(f"{path}: is not TOML: {error}") from None
    values = {name.replace("-", "_"): value for name, value in values.items()}
    known = {*TRAINING, *RUN, *OTHERS}
    unknown = sorted(set(values) - known)
    if unknown:
        raise click.BadParameter(f"{path}: unknown settings {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    context.default_map = {**(context.default_map or {}), **values}
    return path
