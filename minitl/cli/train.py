"""``minitl train``: fine-tune a BERT for named entities, in a folder that an interruption cannot spoil."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minitl.errors import InterruptedRunError, MinitlError

if TYPE_CHECKING:
    from minitl.training import RunSettings

TRAINING = (
    *("epochs", "max_steps", "batch_size", "accumulation", "lr", "weight_decay", "warmup", "schedule", "max_norm"),
    *("seed", "evaluate_every", "patience", "min_delta", "checkpoint_every", "keep_checkpoints"),
)
RUN = (
    *("data", "model", "max_length", "pieces", "freeze", "class_weights", "label_smoothing", "focal_gamma"),
    *("device", "precision"),
)


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
    unknown = sorted(set(values) - {*TRAINING, *RUN, "output", "seeds"})
    if unknown:
        known = ", ".join(sorted({*TRAINING, *RUN, "output", "seeds"}))
        raise click.BadParameter(f"{path}: unknown settings {', '.join(unknown)}; there are {known}")
    context.default_map = {**(context.default_map or {}), **values}
    return path


class Weights(click.ParamType[Any]):
    """``none``, ``balanced``, or ``LABEL=WEIGHT,LABEL=WEIGHT``; in TOML also a table."""

    name = "weights"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what RunSettings takes."""
        if isinstance(value, Mapping) or value in ("none", "balanced"):
            return value
        try:
            pairs = [pair.rpartition("=") for pair in str(value).split(",")]
            return {label: float(weight) for label, _, weight in pairs if label or self.fail("")}
        except (ValueError, click.BadParameter):
            self.fail(f"{value!r} is neither none, balanced nor LABEL=WEIGHT,LABEL=WEIGHT", param, ctx)


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options about steps; their ranges are checked by TrainingSettings."""
    options = (
        click.option("--epochs", type=int, default=5, help="Times through the training sentences."),
        click.option("--max-steps", type=int, help="End after this many steps.", default=None),
        click.option("--batch-size", type=int, default=16, help="Sentences of one forward pass."),
        click.option("--accumulation", type=int, default=1, help="Batches of one step."),
        click.option("--lr", type=float, default=2e-4, help="Peak learning rate."),
        click.option("--weight-decay", type=float, default=0.01, help="Of weights and embeddings."),
        click.option("--warmup", type=float, default=0.1, help="Share of the steps with a rising learning rate."),
        click.option("--schedule", type=click.Choice(["linear", "cosine", "constant"]), default="linear"),
        click.option("--max-norm", type=float, default=1.0, help="Largest norm of the gradient."),
        click.option("--seed", type=int, default=0, help="Of everything random."),
        click.option(
            "--evaluate-every", type=int, help="Steps between evaluations, besides each epoch's end.", default=None
        ),
        click.option("--patience", type=int, help="Evaluations without improvement that end training.", default=None),
        click.option("--min-delta", type=float, default=0.0, help="Least improvement that counts for --patience."),
        click.option("--checkpoint-every", type=int, help="Steps between checkpoints [each evaluation].", default=None),
        click.option("--keep-checkpoints", type=int, default=2, help="How many checkpoints stay."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.option("--data", metavar="FOLDER", help="CoNLL files train, dev, test.  [default: the embedded corpus]")
@click.option(
    "--model", default="sentence-transformers/all-MiniLM-L6-v2", help="Folder or Hugging Face name of a BERT."
)
@click.option("--output", metavar="FOLDER", help="Where to write.  [default: runs/ner-1, runs/ner-2, ...]")
@click.option("--overwrite", is_flag=True, help="Remove what a run has left in --output before.")
@click.option("--max-length", type=int, default=128, help="Tokens the model reads at once.")
@click.option("--pieces", type=click.Choice(["first", "all"]), default="first", help="Which pieces carry the label.")
@click.option("--freeze", default="nothing", help="nothing, embeddings, encoder, or a number of layers.")
@click.option("--class-weights", type=Weights(), default="none", help="none, balanced, or LABEL=WEIGHT,...")
@click.option("--label-smoothing", type=float, default=0.0, help="Share of a target that is spread over all labels.")
@click.option("--focal-gamma", type=float, default=0.0, help="Of the focal loss; 0 for cross-entropy.")
@click.option("--device", default="cpu", help="cpu, or cuda for a GPU.")
@click.option(
    "--precision", type=click.Choice(["float32", "bfloat16", "tf32", "auto"]), default="float32", help="Of products."
)
@training_options
@click.option("--seeds", type=click.IntRange(1), default=1, help="Runs with this and the next seeds; their mean.")
@click.option("--resume", metavar="FOLDER", help="Go on with an interrupted run; its settings are in its folder.")
@click.option("--strict-resume", is_flag=True, help="With --resume: a damaged checkpoint is an error.")
@click.option("--reproduce", metavar="RUN.JSON", help="Repeat a run and compare, bit for bit.")
@click.option(
    "--lr-range-test", metavar="PICTURE.svg", help="Try growing learning rates, draw the losses, change nothing else."
)
@click.option("--dry-run", is_flag=True, help="Check everything, say what would happen, write nothing.")
@click.option(
    "--config", metavar="TOML", callback=read_config, is_eager=True, expose_value=False, help="File with options."
)
@click.pass_context
def train(context: click.Context, /, **options: Any) -> None:
    """Fine-tune a BERT to find named entities, and print the results as JSON.

    Ctrl-C finishes the step, saves, and exits with 130; --resume goes on as if nothing had happened, to the same bits.

    \b
    Examples:
      minitl train
      minitl train --data my_folder --epochs 3 --patience 2 --output runs/mine
      minitl train --config run.toml --lr 1e-4 --seeds 3
      minitl train --resume runs/mine
      minitl train --reproduce runs/mine/run.json
    """
    given = {name for name in options if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE}
    if options["resume"] is not None:
        _only(given, {"resume", "strict_resume"}, "--resume takes its settings from the folder")
        results = resume(Path(options["resume"]), strict=options["strict_resume"])
    elif options["reproduce"] is not None:
        _only(given, {"reproduce", "output", "data", "model"}, "--reproduce takes its settings from the file")
        results = reproduce(Path(options["reproduce"]), options, given)
    else:
        settings = settings_of(options)
        if options["dry_run"]:
            dry_run(settings, options)
            return
        if options["lr_range_test"] is not None:
            click.echo(json.dumps(range_test(settings, Path(options["lr_range_test"])), indent=2))
            return
        results = run_seeds(settings, options["seeds"], options["output"], options["overwrite"])
    click.echo(json.dumps(results, indent=2))


def _only(given: set[str], allowed: set[str], why: str) -> None:
    others = sorted("--" + name.replace("_", "-") for name in given - allowed)
    if others:
        raise click.UsageError(f"{why}; leave out {', '.join(others)}")


def say(line: str) -> None:
    """Tell people something: on standard error, which is no data."""
    click.echo(line, err=True)


def settings_of(options: Mapping[str, Any]) -> RunSettings:
    """Return the settings of the command line and its TOML file."""
    from minitl.training import RunSettings, TrainingSettings

    try:
        training = TrainingSettings(**{name: options[name] for name in TRAINING})
        settings = RunSettings(**{name: options[name] for name in RUN}, training=training)
    except MinitlError as error:
        raise click.UsageError(str(error)) from None
    # absolute, so that the run can be resumed from another folder
    data = None if settings.data is None else str(Path(settings.data).absolute())
    model = str(Path(settings.model).absolute()) if Path(settings.model).is_dir() else settings.model
    return replace(settings, data=data, model=model)


def dry_run(settings: RunSettings, options: Mapping[str, Any]) -> None:
    """Load and check everything, and say what a run would do."""
    from minitl.training import FineTuning
    from minitl.training.runs import check_output_folder

    where = options["output"] or "the next free runs/ner-N"
    if options["output"] is not None:
        check_output_folder(options["output"], overwrite=options["overwrite"])
    work = FineTuning(settings, say)
    sentences = len(work.encoded["train"])
    batch = settings.training.batch_size * settings.training.accumulation
    say(
        f"would train {settings.training.epochs} epochs of {sentences} sentences, {-(-sentences // batch)} steps each, "
        f"{options['seeds']} time(s), and write to {where}; nothing was written"
    )


def range_test(settings: RunSettings, path: Path) -> dict[str, Any]:
    """Run the learning-rate range test, write its picture, and return what it saw."""
    from minitl.models import atomic_file
    from minitl.precision import precision
    from minitl.training import FineTuning, lr_range_test

    if path.exists():
        raise MinitlError(f"{path}: exists; name another file for the picture")
    work = FineTuning(settings, say)
    with precision(settings.precision, device=settings.device):
        result = lr_range_test(work.model, work.encoded["train"], settings.training, loss_options=work.loss_options)
    atomic_file.write_bytes(path, result.picture().encode())
    if result.suggestion is None:
        say("the loss did not fall at any rate")
    else:
        say(f"the loss falls fastest at {result.steepest:.1e}; stay below {result.suggestion:.1e}; drawn in {path}")
    return vars(result)


def run_seeds(settings: RunSettings, seeds: int, output: str | None, overwrite: bool) -> dict[str, Any]:
    """Run once, or once for each seed in a folder of its own, and return the results."""
    from minitl.training import FineTuning
    from minitl.training.runs import run_folder

    if seeds == 1:
        work = FineTuning(settings, say)  # what can be found wrong is found before a folder is made
        with run_folder("ner", output, overwrite=overwrite) as folder, how_to_resume(folder):
            results = work.run(folder)
        say(f"saved to {folder}")
        return {"folder": str(folder), **results}
    first = settings.training.seed
    FineTuning(settings)
    with run_folder("ner", output, overwrite=overwrite) as folder:
        plan = {"seeds": list(range(first, first + seeds)), "settings": settings.as_dict()}
        with how_to_resume(folder):
            return run_plan(folder, plan, settings, strict=False)


@contextmanager
def how_to_resume(folder: Path) -> Iterator[None]:
    """Say how to go on, when a run in the block is interrupted."""
    try:
        yield
    except (InterruptedRunError, KeyboardInterrupt):
        say(f"to go on: minitl train --resume {folder}")
        raise


def run_plan(folder: Path, plan: Mapping[str, Any], settings: RunSettings, *, strict: bool) -> dict[str, Any]:
    """Run each seed of a plan, or go on with it, and write ``seeds.json`` with the mean."""
    from minitl.models import atomic_file
    from minitl.training import FineTuning, summarize

    atomic_file.write_bytes(folder / "seeds.json", json.dumps(plan, indent=2).encode())
    scores: dict[str, list[float]] = {"dev": [], "test": []}
    for seed in plan["seeds"]:
        say(f"\nseed {seed}")
        own = folder / f"seed-{seed}"
        own.mkdir(exist_ok=True)
        training = replace(settings.training, seed=seed)
        results = FineTuning(replace(settings, training=training), say).run(own, resume=True, strict_resume=strict)
        for part, values in scores.items():
            values.append(results["scores"][part]["f1"])
    summary: dict[str, Any] = {}
    for part, values in scores.items():
        one = summarize(values)
        say(f"{part} entity F1 {one}")
        worst = min(values)
        if worst < 0.5 * one.mean:
            say(f"WARNING: a seed failed: its {part} F1 is {worst:.4f}")
        summary[part] = {"f1": values, **{name: value for name, value in vars(one).items() if value == value}}
    atomic_file.write_bytes(folder / "seeds.json", json.dumps({**plan, "summary": summary}, indent=2).encode())
    return {"folder": str(folder), **summary}


def resume(folder: Path, *, strict: bool) -> dict[str, Any]:
    """Go on with an interrupted run, or with several of them."""
    from minitl.models import strict_json
    from minitl.training import FineTuning, RunSettings
    from minitl.training.manifest import LARGEST, MANIFEST, read_manifest

    if (folder / "seeds.json").is_file():
        plan = strict_json.read_object(folder / "seeds.json", largest=LARGEST)
        with how_to_resume(folder):
            return run_plan(folder, plan, RunSettings.from_dict(plan["settings"]), strict=strict)
    if not (folder / MANIFEST).is_file():
        raise MinitlError(f"{folder}: has no {MANIFEST}, so it is no run that could be resumed")
    settings = RunSettings.from_dict(read_manifest(folder)["settings"])
    with how_to_resume(folder):
        results = FineTuning(settings, say).run(folder, resume=True, strict_resume=strict)
    say(f"saved to {folder}")
    return {"folder": str(folder), **results}


def reproduce(path: Path, options: Mapping[str, Any], given: set[str]) -> dict[str, Any]:
    """Repeat a run in a folder of its own, and compare what it ends with."""
    from minitl.training import FineTuning, reproduce_settings
    from minitl.training.manifest import environment, environment_notes
    from minitl.training.runs import run_folder
    from minitl.training.training_state import differences

    settings, document = reproduce_settings(path)
    settings = replace(settings, **{name: options[name] for name in ("data", "model") if name in given})
    for note in environment_notes(document["environment"], environment(settings.device)):
        say(note)
    work = FineTuning(settings, say)
    then = {name: value for name, value in document["identity"].items() if name != "precision"}
    different = differences(work.identity, then)
    if different:
        raise MinitlError(f"{path}: it was another training:\n  " + "\n  ".join(different))
    with run_folder("ner", options["output"]) as folder:
        results = work.run(folder)
    before = document["results"]
    if results["final_weights"] != before["final_weights"] or results["scores"] != before["scores"]:
        raise MinitlError(
            f"{path}: not reproduced: the weights differ; test F1 was {before['scores']['test']['f1']:.4f}, "
            f"is {results['scores']['test']['f1']:.4f}"
        )
    say("reproduced: the final weights are equal, bit for bit")
    return {"folder": str(folder), "reproduced": True, **results}
