"""``minitl predict``: named entities of texts, streaming: what is held at once does not grow with the input."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

import click

from minitl.cli.inputs import READERS, Record, records_of
from minitl.errors import DataError
from minitl.text.conll import DOCUMENT_START, writable
from minitl.text.decoding import AGGREGATIONS

if TYPE_CHECKING:
    from minitl.models.tagging import Span, TaggedWords

AT_ONCE = 256  # records that the model sees together, to be sorted by length
CHARACTERS_AT_ONCE = 1_000_000  # or fewer records, if they are long


@click.command()
@click.argument("model_folder", metavar="MODEL")
@click.argument("inputs", nargs=-1)
@click.option(
    "--from", "kind", type=click.Choice(list(READERS)), help="What the input is.  [default: by ending, else text]"
)
@click.option(
    "--to",
    "target",
    type=click.Choice(["jsonl", "conll", "pretty"]),
    help="What to write.  [default: pretty on a terminal, else jsonl]",
)
@click.option("--aggregation", type=click.Choice(AGGREGATIONS), default="first", help="How pieces of a word vote.")
@click.option("--constrained", is_flag=True, help="Consider legal sequences of tags only.")
@click.option("--batch-size", type=click.IntRange(1), default=32, help="Sentences at a time.")
def predict(model_folder: str, inputs: tuple[str, ...], kind: str | None, target: str | None, **options: Any) -> None:
    """Find named entities in INPUTS, which are files, folders, or - for standard input (the default).

    text has a text in each line, words a sentence with blanks between words, conll and conllu a word in each line,
    jsonl objects with a "text" or a list of "words". A result comes for each text or sentence, in order: a JSON object
    with "entities" (start and end count characters: text[start:end] is the entity), or with "tags" and "scores" for
    words; or, as conll, each word with its tag.

    \b
    Examples:
      echo "Angela Merkel visited Paris." | minitl predict runs/ner-1
      minitl predict runs/ner-1 --constrained articles/*.txt > entities.jsonl
      minitl predict runs/ner-1 --from conll --to conll test.conll > tagged.conll
    """
    target = target or ("pretty" if sys.stdout.isatty() else "jsonl")
    from minitl.models import BertForTokenClassification  # here: --help need not wait for it

    model = BertForTokenClassification.from_pretrained(model_folder)
    records = records_of(inputs, kind)
    document = 0
    for chunk in chunks(records):
        document = write(tag(model, chunk, options), target, sys.stdout, document)
        sys.stdout.flush()


def chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield records in groups of bounded size; what was read before a mistake in the input is still yielded."""
    records = iter(records)
    problem: DataError | None = None
    while problem is None:
        chunk: list[Record] = []
        characters = 0
        try:
            for record in islice(records, AT_ONCE):
                chunk.append(record)
                characters += len(record.text or "") + sum(map(len, record.words or ()))
                if characters >= CHARACTERS_AT_ONCE:
                    break
        except DataError as error:
            problem = error
        if chunk:
            yield chunk
        elif problem is None:
            return
    raise problem


Tagged = tuple[Record, "list[Span] | TaggedWords"]


def tag(model: Any, records: Sequence[Record], options: dict[str, Any]) -> list[Tagged]:
    """Tag texts and sentences, and return them in order."""
    texts = [record.text for record in records if record.words is None]
    words = [record.words for record in records if record.words is not None]
    spans = iter(model.tag_texts(texts, **options))
    tagged = iter(model.tag_words(words, **options))
    return [(record, next(spans if record.words is None else tagged)) for record in records]


def write(results: Iterable[Tagged], target: str, stream: TextIO, document: int = 0) -> int:
    """Write results in one of three ways; return the number of the document of the last one, for the next call."""
    for record, result in results:
        if target == "jsonl":
            stream.write(json.dumps(as_json(record, result), ensure_ascii=True) + "\n")
        elif target == "conll":
            if record.document != document:
                stream.write(f"{DOCUMENT_START}\tO\n\n")
            document = record.document
            stream.write(as_conll(record, result))
        else:
            stream.write(as_picture(record, result) + "\n")
    return document


def as_json(record: Record, result: Any) -> dict[str, Any]:
    """Return the object of one line."""
    if record.words is None:
        spans = [{**vars(span), "score": round(span.score, 6)} for span in result]
        return {**record.extra, "text": record.text, "entities": spans}
    scores = [round(float(score), 6) for score in result.scores]
    return {**record.extra, "words": list(record.words), "tags": result.tags, "scores": scores}


def as_conll(record: Record, result: Any) -> str:
    """Return the lines of a sentence: a word, a tab, its tag."""
    if record.words is None:
        raise DataError(f"{record.source}: is text, which has no words; --to conll is for --from words, conll or jsonl")
    rows = list(zip(record.words, result.tags, strict=True))
    try:
        return "".join(f"{writable(row[0], 0, row)}\t{row[1]}\n" for row in rows) + "\n"
    except ValueError as error:
        raise DataError(f"{record.source}: {error}; --to jsonl holds any word") from None


def as_picture(record: Record, result: Any) -> str:
    """Return a text with its entities in colour or brackets; nothing in it can steer the terminal."""
    from minitl.text.schemes import lenient_spans
    from minitl.viz import colour_entities

    if record.words is None:
        return colour_entities(record.text or "", result)
    return colour_entities(record.words, lenient_spans(result.tags))
