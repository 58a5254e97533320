"""``minitl compare``: two runs on the same sentences, with the interval of their difference."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from minitl.cli.printing import show, show_json
from minitl.errors import DataError

PREDICTIONS = "predictions.conll"


@click.command()
@click.argument("first")
@click.argument("second")
@click.option("--resamples", type=click.IntRange(100), default=10_000, help="Test sets to draw.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the drawing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def compare(first: str, second: str, resamples: int, seed: int, as_json: bool) -> None:
    """Say whether SECOND is better than FIRST: run folders, or CoNLL files with word, gold tag and predicted tag.

    Documents are drawn with replacement, sentences where the file has one document only.

    \b
    Examples:
      minitl compare runs/ner-1 runs/ner-2
      minitl compare before.conll after.conll --json
    """
    from minitl.metrics.comparison import compare_taggers
    from minitl.text import read_conll

    paths = [Path(name) / PREDICTIONS if Path(name).is_dir() else Path(name) for name in (first, second)]
    golds = [read_conll(path, tag_column=1) for path in paths]
    ours, theirs = ([one.tags or () for one in read_conll(path, tag_column=2)] for path in paths)
    if len(golds[0]) != len(golds[1]):
        raise DataError(f"{paths[0]} has {len(golds[0])} sentences, {paths[1]} has {len(golds[1])}: not the same data")
    for one, other in zip(*golds, strict=True):
        if (one.words, one.tags) != (other.words, other.tags):
            raise DataError(f"{one.place()} and {other.place()}: words or gold tags differ: not the same data")
    documents = [sentence.document for sentence in golds[0]]
    unit = "documents" if documents[-1] > 0 else "sentences"
    groups = documents if unit == "documents" else list(range(len(documents)))
    gold = [sentence.tags or () for sentence in golds[0]]
    result = compare_taggers(gold, ours, theirs, groups, resamples=resamples, seed=seed)
    if as_json:
        show_json({**asdict(result), "unit": unit})
        return
    show(f"entity F1 (conlleval) and 95 % interval, over {result.groups} {unit}, {resamples:,} test sets drawn")
    show(f"{first}: {result.first}\n{second}: {result.second}\ndifference: {result.difference}")
    verdict = "is better" if result.difference.low > 0 else "is worse" if result.difference.high < 0 else ""
    show(
        f"the second {verdict}: 0 lies outside of the interval"
        if verdict
        else "no difference can be told: 0 lies in the interval"
    )
    show(f"the second was not better on {result.not_better:.2%} of the test sets that were drawn")
