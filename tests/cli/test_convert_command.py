"""``minitl convert``: files and pipes, what it refuses, and data folders in any format."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_tools import call_here
from tiny import write_tiny_data, write_tiny_model

from minitl.text import read_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_data(tmp_path / "data", 6)
    shutil.copy(tmp_path / "data" / "train.conll", tmp_path / "a.conll")
    return tmp_path


def test_a_file_to_every_format_and_back(folder: Path) -> None:
    for ending in ("jsonl", "conllu"):
        there = call_here("convert", "a.conll", f"a.{ending}", folder=folder)
        assert (there.code, there.out) == (0, "")
        assert there.err.splitlines()[-1] == f"wrote a.{ending}"
        back = call_here("convert", f"a.{ending}", "--to", "conll", folder=folder)
        assert (back.code, back.out) == (0, (folder / "a.conll").read_text()), back.err


def test_a_pipe_to_a_pipe(folder: Path) -> None:
    done = call_here(
        "convert", "-", "--from", "conll", "--scheme", "BIOES", folder=folder, stdin="Zoë\tI-PER\n".encode()
    )
    assert (done.code, done.out) == (0, "Zoë\tS-PER\n")
    assert done.err == "standard input: 1 sentence, 1 word, entities: 1, IOB1 tags written as BIOES\n"


def test_nothing_is_overwritten_unless_asked(folder: Path) -> None:
    (folder / "b.jsonl").write_text("mine")
    refused = call_here("convert", "a.conll", "b.jsonl", folder=folder)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err == "minitl: b.jsonl: exists; choose another name, or replace it with --overwrite\n"
    dry = call_here("convert", "a.conll", "b.jsonl", "--overwrite", "--dry-run", folder=folder)
    assert dry.code == 0
    assert "would write" in dry.err
    assert (folder / "b.jsonl").read_text() == "mine"
    assert call_here("convert", "a.conll", "b.jsonl", "--overwrite", folder=folder).code == 0
    assert (folder / "b.jsonl").read_text().startswith('{"text"')


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("a.txt",), 2, "INPUT 'a.txt' has none of the endings .conllu, .jsonl, .ndjson, .conll, .bio, .iob, .tsv"),
        (("-",), 2, "say its format with --from"),
        (("a.conll", "a.csv"), 2, "say its format with --to"),
        (("nowhere.conll",), 1, "nowhere.conll: cannot be read (No such file or directory)"),
        (("data", "--from", "conll"), 1, "data: cannot be read (Is a directory)"),
        (("a.conll", "nowhere/b.jsonl"), 1, "nowhere: is no folder; make it first"),
        (("a.conll", "--scheme", "IOB3"), 2, "IOB3"),
        (
            ("a.conll", "--from-scheme", "IOB1"),
            1,
            "a.conll:1: expected tags in IOB1, but 'B-PER' may not come after 'O'",
        ),
        (("a.conll", "--from", "jsonl"), 1, "a.conll:1: is not JSON"),
        (("a.conll", "--from", "conllu"), 1, "a.conll:1: expected 10 columns"),
        (("a.conll", "--tag-column", "5"), 1, "a.conll:1: expected a tag in column 5, found 2 column(s)"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], code: int, message: str, folder: Path) -> None:
    done = call_here("convert", *arguments, folder=folder)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert code == 2 or (done.err.startswith("minitl: ") and done.err.count("\n") == 1)


@pytest.mark.parametrize("ending", ["jsonl", "conllu"])
def test_a_data_folder_in_another_format_is_the_same_data(ending: str, folder: Path) -> None:
    (folder / "other").mkdir()
    for part in ("train", "dev", "test"):
        assert call_here("convert", f"data/{part}.conll", f"other/{part}.{ending}", folder=folder).code == 0
    ours, theirs = read_folder(folder / "data"), read_folder(folder / "other")
    for part in ("train", "dev", "test"):
        assert [(one.words, one.tags) for one in getattr(ours, part)] == [
            (one.words, one.tags) for one in getattr(theirs, part)
        ]
    assert ours.labels == theirs.labels


def test_predict_and_evaluate_read_all_formats(folder: Path) -> None:
    write_tiny_model(folder / "model", id2label=read_folder(folder / "data").labels.id2label)
    tagged = call_here("predict", "model", "a.conll", "--to", "conll", folder=folder)
    scores = call_here("evaluate", "model", "a.conll", "--json", folder=folder)
    assert tagged.code == scores.code == 0, tagged.err + scores.err
    for ending in ("jsonl", "conllu"):
        assert call_here("convert", "a.conll", f"a.{ending}", folder=folder).code == 0
        again = call_here("predict", "model", f"a.{ending}", "--to", "conll", folder=folder)
        assert (again.code, again.out) == (0, tagged.out), again.err
        assert call_here("evaluate", "model", f"a.{ending}", "--json", folder=folder).out == scores.out
