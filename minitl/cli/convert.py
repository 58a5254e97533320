"""``minitl convert``: data files from one format, or tag scheme, to another."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from minitl.cli.given import given_options, refuse
from minitl.cli.printing import say
from minitl.errors import DataError, MinitlError
from minitl.text.conversion import Reading, convert_file
from minitl.text.formats import ENDINGS, FORMATS, Format
from minitl.text.schemes import SCHEMES, Scheme
from minitl.text.spans import MISALIGNED, Misaligned

STREAM = "-"
FORMAT_OF = {"word_column": "conll", "tag_column": "conll", "ner_key": "conllu", "misaligned": "jsonl"}  # of INPUT


@click.command()
@click.argument("source", metavar="INPUT")
@click.argument("output", metavar="[OUTPUT]", default=STREAM, required=False)
@click.option("--from", "kind", type=click.Choice(FORMATS), help="Format of INPUT.  [default: by its ending]")
@click.option("--to", "target", type=click.Choice(FORMATS), help="Format of OUTPUT.  [default: by its ending]")
@click.option("--scheme", type=click.Choice(SCHEMES), help="Tag scheme to write.  [default: that of INPUT]")
@click.option("--from-scheme", type=click.Choice(SCHEMES), help="Tag scheme of INPUT.  [default: the one that fits]")
@click.option("--repair", is_flag=True, help="Read illegal tags as conlleval does, and write legal ones.")
@click.option(
    "--misaligned",
    type=click.Choice(MISALIGNED),
    default="error",
    help="JSON lines: an entity within a word is an error, gets the whole word, or splits it.",
)
@click.option("--ner-key", metavar="KEY", help="CoNLL-U: key in MISC that holds tags.  [default: the usual one found]")
@click.option("--word-column", default=0, help="CoNLL: column of the words, from 0; negative from the right.")
@click.option("--tag-column", default=-1, help="CoNLL: column of the tags.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def convert(
    source: str,
    output: str,
    kind: Format | None,
    target: Format | None,
    scheme: Scheme | None,
    from_scheme: Scheme | None,
    repair: bool,
    misaligned: Misaligned,
    ner_key: str | None,
    word_column: int,
    tag_column: int,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Convert INPUT, a data file, to OUTPUT; - is standard input or output.

    conll has a word and its tag in each line (.conll, .bio, .iob, .tsv), conllu is that of Universal Dependencies with
    tags in MISC (.conllu), jsonl has objects with a text and the places of its entities, or words and tags (.jsonl).
    A file that stays in its format keeps all but its tags. What a format has no place for is left out, and said.

    \b
    Examples:
      minitl convert eng.train train.jsonl --from conll
      minitl convert --scheme BIOES train.conll train_bioes.conll
      minitl convert annotated.jsonl train.conll --misaligned widen
    """
    kind = kind or _by_ending(source, "INPUT", "--from")
    refuse({name for name in given_options() if FORMAT_OF.get(name, kind) != kind}, f"INPUT is {kind}")
    target = target or (kind if output == STREAM else _by_ending(output, "OUTPUT", "--to"))
    place = None if output == STREAM else Path(output)
    if place is not None and place.exists() and not overwrite:
        raise MinitlError(f"{place}: exists; choose another name, or replace it with --overwrite")
    if place is not None and not place.parent.is_dir():
        raise MinitlError(f"{place.parent}: is no folder; make it first")
    reading = Reading(from_scheme, repair, misaligned, ner_key, word_column, tag_column)
    with _opened(source) as stream:
        converted = convert_file(stream, _name(source), kind, target, scheme, reading)
    for note in converted.notes:
        say(f"{_name(source)}: {note}")
    data = converted.text.encode("utf-8")
    if dry_run:
        say(f"would write {len(data):,} bytes to {output if place else 'standard output'}")
    elif place is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        from minitl import atomic_file

        atomic_file.write_bytes(place, data)
        say(f"wrote {place}")


def _by_ending(name: str, argument: str, option: str) -> Format:
    found = ENDINGS.get(Path(name).suffix.lower())
    if name == STREAM or found is None:
        known = ", ".join(ENDINGS)
        raise click.UsageError(f"{argument} {name!r} has none of the endings {known}; say its format with {option}")
    return found


def _name(source: str) -> str:
    return "standard input" if source == STREAM else source


@contextmanager
def _opened(source: str) -> Iterator[IO[bytes]]:
    if source == STREAM:
        yield sys.stdin.buffer
        return
    try:
        with Path(source).open("rb") as stream:
            yield stream
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from None
