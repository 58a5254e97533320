"""A data folder, or the corpus that comes with minitl, as train, dev and test sentences in IOB2."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from os import PathLike
from pathlib import Path

from minitl.errors import DataError
from minitl.text.conll import Sentence, parse_conll
from minitl.text.formats import read_sentences
from minitl.text.labels import LabelSet
from minitl.text.one_scheme import common_scheme, in_scheme
from minitl.text.schemes import Scheme, lenient_spans

# A part is known by its name with any or no extension: `train`, `train.txt`, `eng.train`, `eng.train.bio`.
_PART_NAMES = {
    "train": ("train", "eng.train"),
    "dev": ("dev", "valid", "testa", "eng.testa"),
    "test": ("test", "testb", "eng.testb"),
}


@dataclass(frozen=True)
class Dataset:
    """The three parts of a data set, all in IOB2.

    Attributes:
        train, dev, test: the sentences.
        scheme: the scheme the files were written in.
        labels: every tag of the three parts, after conversion.
        notes: lines for people on what was found and decided.
    """

    train: tuple[Sentence, ...]
    dev: tuple[Sentence, ...]
    test: tuple[Sentence, ...]
    scheme: Scheme
    labels: LabelSet
    notes: tuple[str, ...]


def read_folder(folder: str | PathLike[str]) -> Dataset:
    """Read ``train``, ``dev`` and ``test`` from a folder of data files.

    The files are ``train`` or ``eng.train``; ``dev``, ``valid``, ``testa`` or ``eng.testa``; ``test``, ``testb`` or
    ``eng.testb``; each with any or no extension. ``.jsonl`` is read as JSON lines, ``.conllu`` as CoNLL-U, and all
    else as CoNLL, with words in the first column and tags in the last.

    Args:
        folder: the data folder.

    Returns:
        The three parts, converted to IOB2 from whichever scheme they are in.

    Raises:
        DataError: if the folder or a part is missing, if two files could be the same part, if a file is not as
            :func:`minitl.text.read_sentences` wants it, or if the tags fit no scheme (naming ``file:line``).
    """
    folder = Path(folder)
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    except OSError as error:
        raise DataError(f"{folder}: expected a folder with train, dev and test files: {error.strerror}") from error
    paths = {part: folder / _find_part(folder, names, part) for part in _PART_NAMES}
    return build_dataset({part: read_sentences(path) for part, path in paths.items()})


def load_corpus() -> Dataset:
    """The corpus that comes with minitl: English news-like sentences with PER, ORG, LOC and MISC, in IOB2.

    Raises:
        DataError: if the files are missing from the installation.
    """
    parts = {}
    for part in _PART_NAMES:
        resource = files("minitl.text").joinpath("corpus", f"{part}.conll")
        try:
            content = resource.read_bytes()
        except OSError as error:
            raise DataError(f"{resource}: the embedded corpus is missing; install minitl again") from error
        parts[part] = parse_conll(content, f"corpus/{part}.conll")
    return build_dataset(parts)


def build_dataset(parts: dict[str, list[Sentence]]) -> Dataset:
    """Make a :class:`Dataset` of the sentences of ``train``, ``dev`` and ``test``; see :func:`read_folder`."""
    every_sentence = [sentence for part in _PART_NAMES for sentence in parts[part]]
    scheme = common_scheme(every_sentence)
    notes = [f"read {_counts(part, parts[part])}" for part in _PART_NAMES]
    if scheme != "IOB2":
        notes.append(f"tags are {scheme}, converted to IOB2")
        parts = {part: in_scheme(sentences, scheme, "IOB2") for part, sentences in parts.items()}
    else:
        notes.append("tags are IOB2")
    labels = {part: LabelSet.from_sentences(sentences) for part, sentences in parts.items()}
    for part in ("dev", "test"):
        unseen = sorted(set(labels[part]) - set(labels["train"]))
        if unseen:
            notes.append(f"labels of {part} that never occur in train and so cannot be learnt: {', '.join(unseen)}")
    return Dataset(
        train=tuple(parts["train"]),
        dev=tuple(parts["dev"]),
        test=tuple(parts["test"]),
        scheme=scheme,
        labels=LabelSet.from_tags(part.names for part in labels.values()),
        notes=tuple(notes),
    )


def _find_part(folder: Path, names: Sequence[str], part: str) -> str:
    """The one file of a folder that holds ``part``."""
    stems = "|".join(re.escape(name) for name in _PART_NAMES[part])
    found = [name for name in names if re.fullmatch(rf"({stems})(\.[^.]+)?", name, re.IGNORECASE)]
    looked_for = " or ".join(_PART_NAMES[part])
    if len(found) > 1:
        raise DataError(f"{folder}: expected one file for {part} ({looked_for}), found {', '.join(found)}; keep one")
    if not found:
        present = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "") if names else "no files"
        fix = (
            "" if part == "train" else f"; to make one, move about a tenth of the sentences of train into {part}.conll"
        )
        raise DataError(f"{folder}: expected a file {looked_for} with any extension, found {present}{fix}")
    return found[0]


def _counts(part: str, sentences: Iterable[Sentence]) -> str:
    """One line on a part: ``train: 14041 sentences in 946 documents, 203621 words, 23499 entities (LOC 7140, ...)``."""
    sentences = list(sentences)
    types = Counter(entity.type for sentence in sentences for entity in lenient_spans(sentence.tags or ()))
    by_type = ", ".join(f"{name or 'without type'} {count}" for name, count in sorted(types.items()))
    words = sum(len(sentence.words) for sentence in sentences)
    documents = sentences[-1].document + 1
    return (
        f"{part} ({sentences[0].source}): {len(sentences)} sentences in {documents} document(s), {words} words, "
        f"{types.total()} entities{f' ({by_type})' if by_type else ''}"
    )
