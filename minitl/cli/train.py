"""``minitl train``: fine-tune a BERT for named entities, in a folder that an interruption cannot spoil."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minitl.cli.given import given_options, refuse
from minitl.cli.printing import say, show_json
from minitl.cli.train_options import RUN, TRAINING, read_config, run_options
from minitl.errors import InterruptedRunError, MinitlError

if TYPE_CHECKING:
    from minitl.training import RunSettings


@click.command()
@run_options
@click.option("--output", metavar="FOLDER", help="Where to write.  [default: runs/ner-1, runs/ner-2, ...]")
@click.option("--overwrite", is_flag=True, help="Remove what a run has left in --output before.")
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
def train(**options: Any) -> None:
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
    given = given_options()
    if options["resume"] is not None:
        refuse(given - {"resume", "strict_resume"}, "--resume takes its settings from the folder")
        results = resume(Path(options["resume"]), strict=options["strict_resume"])
    elif options["reproduce"] is not None:
        refuse(given - {"reproduce", "output", "data", "model"}, "--reproduce takes its settings from the file")
        results = reproduce(Path(options["reproduce"]), options, given)
    else:
        refuse(given & {"strict_resume"}, "nothing is resumed without --resume")
        settings = settings_of(options)
        if options["lr_range_test"] is not None:
            others = given & {"dry_run", "output", "overwrite", "seeds"}
            refuse(others, "--lr-range-test writes nothing but its picture")
            show_json(range_test(settings, Path(options["lr_range_test"])))
            return
        if options["dry_run"]:
            dry_run(settings, options)
            return
        results = run_seeds(settings, options["seeds"], options["output"], options["overwrite"])
    show_json(results)


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
    training, sentences = settings.training, len(work.encoded["train"])
    steps = -(-sentences // (training.batch_size * training.accumulation))
    most = "" if training.max_steps is None else f"at most {training.max_steps} steps in all, "
    say(
        f"would train {training.epochs} epochs of {sentences} sentences, {steps} steps each, {most}"
        f"{options['seeds']} time(s), and write to {where}; nothing was written"
    )


def range_test(settings: RunSettings, path: Path) -> dict[str, Any]:
    """Run the learning-rate range test, write its picture, and return what it saw."""
    from minitl import atomic_file
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
    from minitl.training.folder_lock import folder_lock
    from minitl.training.runs import check_output_folder, run_folder

    if output is not None:
        check_output_folder(output, overwrite=overwrite)
    if seeds == 1:
        work = FineTuning(settings, say)  # what can be found wrong is found before a folder is made
        with run_folder("ner", output, overwrite=overwrite) as folder, how_to_resume(folder):
            results = work.run(folder)
        say(f"saved to {folder}")
        return {"folder": str(folder), **results}
    first = settings.training.seed
    FineTuning(settings)  # likewise; each seed then loads what it needs anew
    with run_folder("ner", output, overwrite=overwrite) as folder:
        plan = {"seeds": list(range(first, first + seeds)), "settings": settings.as_dict()}
        with how_to_resume(folder), folder_lock(folder):
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
    from minitl import atomic_file
    from minitl.training import FineTuning, summarize

    atomic_file.remove_leftovers(folder)
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
    from minitl import strict_json
    from minitl.training import FineTuning, RunSettings
    from minitl.training.folder_lock import folder_lock
    from minitl.training.manifest import LARGEST, MANIFEST, read_manifest

    if (folder / "seeds.json").is_file():
        plan = strict_json.read_object(folder / "seeds.json", largest=LARGEST)
        with how_to_resume(folder), folder_lock(folder):
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
