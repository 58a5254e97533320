"""The formats of data files: CoNLL, CoNLL-U and JSON lines, known by a file's ending."""

from os import PathLike
from pathlib import Path
from typing import Literal, get_args

from minitl.text.conll import Sentence, read_conll
from minitl.text.conllu import read_conllu
from minitl.text.jsonl import read_jsonl

Format = Literal["conll", "conllu", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
ENDINGS: dict[str, Format] = {
    ".conllu": "conllu",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".conll": "conll",
    ".bio": "conll",
    ".iob": "conll",
    ".tsv": "conll",
}


def format_of(path: str | PathLike[str], default: Format = "conll") -> Format:
    """The format of a file by its ending; ``default`` where the ending says nothing."""
    return ENDINGS.get(Path(path).suffix.lower(), default)


def read_sentences(path: str | PathLike[str]) -> list[Sentence]:
    """Read a file of tagged sentences in the format that its ending says, CoNLL if it says none.

    Raises:
        DataError: as :func:`minitl.text.read_conll`, ``read_conllu`` and ``read_jsonl``.
    """
    kind = format_of(path)
    if kind == "jsonl":
        return read_jsonl(path)
    return read_conllu(path) if kind == "conllu" else read_conll(path)
