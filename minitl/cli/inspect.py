"""``minitl inspect``: what is in a model folder, a weights file, a run, or a data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from minitl.cli.given import given_options, refuse
from minitl.cli.printing import show, show_json
from minitl.errors import MinitlError


@click.command()
@click.argument("path")
@click.option("--model", metavar="MODEL", help="With data: also say what this model's tokenizer makes of the words.")
@click.option("--tensors", is_flag=True, help="With weights: list every tensor.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def inspect(path: str, model: str | None, tensors: bool, as_json: bool) -> None:
    """Describe PATH: a model folder, a run, a .safetensors file, or a data folder ("corpus" for minitl's own).

    Exit code 1: data with a fault that spoils scores, such as test sentences that are in train, too.

    \b
    Examples:
      minitl inspect runs/ner-1 --tensors
      minitl inspect my_folder --model runs/ner-1
    """
    place, given = Path(path), given_options()
    if place.suffix == ".safetensors" and place.is_file():
        refuse(given & {"model"}, f"{path} holds weights, not data")
        report = weights(place)
    elif path == "corpus" or (place.is_dir() and not (place / "config.json").exists()):
        refuse(given & {"tensors"}, f"{path} is data, not a model")
        report = data(path, model)
    elif place.is_dir():
        refuse(given & {"model"}, f"{path} is a model, not data")
        report = model_folder(place)
    else:
        raise MinitlError(f"{path}: is neither a folder nor a .safetensors file")
    listed = report.pop("tensors", {})
    if as_json:
        show_json({**report, **({"tensors": listed} if tensors else {})})
    else:
        for name, value in report.items():
            show(f"{name}: {_shown(value)}")
        if tensors:
            for name, (dtype, shape) in listed.items():
                show(f"  {name}  {dtype} {shape}")
    if report.get("faults"):
        click.get_current_context().exit(1)


def _shown(value: Any, depth: int = 1) -> str:
    """Return a value for people: lists and dictionaries line by line, further in for each level."""
    margin = "\n" + "  " * depth
    if isinstance(value, dict):
        return "".join(f"{margin}{name}: {_shown(item, depth + 1)}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return "".join(f"{margin}{item}" for item in value) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def weights(path: Path) -> dict[str, Any]:
    """Describe one weights file from its header alone."""
    import math

    from minitl.models.safetensors_file import read_header

    header = read_header(path)
    return {
        "file": str(path),
        "tensors in it": len(header),
        "numbers": sum(math.prod(info.shape) for info in header.values()),
        "bytes": sum(info.end - info.start for info in header.values()),
        "dtypes": sorted({info.dtype for info in header.values()}),
        "tensors": {name: (info.dtype, list(info.shape)) for name, info in sorted(header.items())},
    }


def model_folder(folder: Path) -> dict[str, Any]:
    """Describe a model folder, and the run that made it, if one has."""
    from minitl.models import BertForTokenClassification
    from minitl.training.checkpoint import CheckpointFolder
    from minitl.training.manifest import MANIFEST, read_manifest
    from minitl.training.trainer import CHECKPOINTS

    model = BertForTokenClassification.from_pretrained(folder)
    config = model.config
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
    report: dict[str, Any] = {
        "folder": str(folder),
        "sizes": {name: getattr(config, name) for name in (*names, "max_position_embeddings")},
        "parameters": sum(parameter.size for parameter in model.parameters()),
        "labels": ", ".join(config.id2label.values()),
        "loading": str(model.load_report).splitlines(),
        "tensors": {name: (values.dtype.name, list(values.shape)) for name, values in model.state_dict().items()},
    }
    if (folder / MANIFEST).is_file():
        run = read_manifest(folder)
        report["run"] = {"status": run.get("status"), "data": run["settings"]["data"] or "corpus"}
        if "results" in run:
            report["run"] |= {f"{part} F1": round(scores["f1"], 4) for part, scores in run["results"]["scores"].items()}
    if (folder / CHECKPOINTS).is_dir():
        newest, notes = CheckpointFolder(folder / CHECKPOINTS).newest()
        report["newest whole checkpoint"] = "none" if newest is None else f"step {newest.step}"
        report["damaged checkpoints"] = notes
    return report


def data(path: str, model: str | None) -> dict[str, Any]:
    """Describe a data folder; see ``minitl.text.data_report``."""
    from minitl.text import load_corpus, read_folder
    from minitl.text.data_report import data_report, token_report

    dataset = load_corpus() if path == "corpus" else read_folder(path)
    report = data_report(dataset)
    if model is not None:
        from minitl.models.sources import resolve
        from minitl.text import TextTokenizer

        report["words and pieces"] = token_report(dataset, TextTokenizer.from_folder(resolve(model).folder))
    return report
