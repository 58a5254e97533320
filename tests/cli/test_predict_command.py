"""``minitl predict`` and ``minitl evaluate``: formats, order, encodings, pipes, exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from cli_tools import COMMAND, call, call_here
from tiny import write_tiny_data, write_tiny_model

from minitl.models import BertForTokenClassification
from minitl.text import read_conll, read_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    labels = read_folder(write_tiny_data(folder / "data", 12)).labels.id2label
    write_tiny_model(folder / "model", id2label=labels, initializer_range=0.5)
    return folder


TEXTS = ["anna lives in oslo", "", "ben, and \U0001f600 rome\u2028acme", "\u200b", "bolt " * 100]


def test_text_from_a_pipe(folder: Path) -> None:
    result = call("predict", "model", folder=folder, stdin="\n".join(TEXTS).encode())
    assert result.code == 0, result.err
    records = [json.loads(line) for line in result.out.splitlines()]
    assert [record["text"] for record in records] == TEXTS
    model = BertForTokenClassification.from_pretrained(folder / "model")
    expected = [[(span.start, span.end, span.label) for span in model.tag(text)] for text in TEXTS]
    found = [[(one["start"], one["end"], one["label"]) for one in record["entities"]] for record in records]
    assert found == expected
    assert sum(map(len, found)) > 5
    for record in records:
        for entity in record["entities"]:
            assert record["text"][entity["start"] : entity["end"]] == entity["text"]


def test_words_and_conll_have_a_tag_for_each_word(folder: Path) -> None:
    conll = call_here("predict", "model", "--from", "conll", "--to", "conll", "data/test.conll", folder=folder)
    (folder / "tagged.conll").write_text(conll.out)
    gold, tagged = read_conll(folder / "data" / "test.conll"), read_conll(folder / "tagged.conll")
    assert [sentence.words for sentence in tagged] == [sentence.words for sentence in gold]
    words = "\n".join(" ".join(sentence.words) for sentence in gold) + "\n"
    same = call_here("predict", "model", "--from", "words", folder=folder, stdin=words.encode())
    records = [json.loads(line) for line in same.out.splitlines()]
    assert [tuple(record["tags"]) for record in records] == [sentence.tags for sentence in tagged]
    assert all(0 < score <= 1 for record in records for score in record["scores"])


def test_documents_come_through(folder: Path) -> None:
    text = b"-DOCSTART- -X- O\n\nanna x O\n\nben x O\n\n-DOCSTART- -X- O\n\noslo x O\n"
    result = call_here("predict", "model", "--from", "conll", "--to", "conll", folder=folder, stdin=text)
    (folder / "documents.conll").write_text(result.out)
    found = read_conll(folder / "documents.conll")
    assert [(sentence.words, sentence.document) for sentence in found] == [
        (("anna",), 0),
        (("ben",), 0),
        (("oslo",), 1),
    ]


def test_each_file_is_a_document_of_its_own(folder: Path) -> None:
    (folder / "a.conll").write_text("anna\n\n-DOCSTART-\n\nben\n")
    (folder / "b.conll").write_text("oslo\n\nrome\n")
    inputs = ("a.conll", "a.conll", "b.conll")
    (folder / "three.conll").write_text(call_here("predict", "model", *inputs, "--to", "conll", folder=folder).out)
    found = read_conll(folder / "three.conll")
    assert [sentence.document for sentence in found] == [0, 1, 2, 3, 4, 4]


def test_json_lines_keep_what_they_hold(folder: Path) -> None:
    lines = [{"id": 7, "text": "anna"}, {"words": ["ben", "\u0000", "a\tb", "\ud7ff"], "more": [1]}, {"words": []}]
    (folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = call_here("predict", "model", "in.jsonl", "--constrained", "--aggregation", "max", folder=folder)
    records = [json.loads(line) for line in result.out.splitlines()]
    assert records[0]["id"] == 7
    assert len(records[1]["tags"]) == 4
    assert records[1]["more"] == [1]
    assert (records[2]["words"], records[2]["tags"]) == ([], [])


def test_several_files_and_a_folder_in_order(folder: Path) -> None:
    texts = folder / "texts"
    texts.mkdir()
    for name in ("b", "a", "c"):
        (texts / f"{name}.txt").write_text(f"{name} one\n{name} two\n", encoding="utf-8-sig")
    result = call_here("predict", "model", "texts", texts / "a.txt", folder=folder)
    assert [json.loads(line)["text"][0] for line in result.out.splitlines()] == list("aabbccaa")


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        ((), b"good\nb\xe9d\n", 1, "standard input:2: expected UTF-8, found byte 0xe9 at byte offset 6"),
        ((), "anna\n".encode("utf-16"), 1, "begins like UTF-16"),
        (("--from", "jsonl"), b'{"text": "a"}\n{"txt": 1}\n', 1, 'standard input:2: expected "text"'),
        (("--from", "jsonl"), b'{"text": "a", "text": "b"}\n', 1, "duplicate key 'text'"),
        (("--from", "jsonl"), b"\n", 1, "found an empty line"),
        (("--from", "conll"), b"a b\nc\n", 1, "standard input:2: expected 2 columns"),
        (("--to", "conll"), b"a b\n", 1, "is text, which has no words"),
        (
            ("--from", "jsonl", "--to", "conll"),
            b'{"words": ["a\\tb"]}',
            1,
            "standard input:1: 'a\\tb' cannot be a column",
        ),
        (("nowhere.txt",), b"", 1, "nowhere.txt: cannot be read"),
        (("--from", "pdf"), b"", 2, "pdf"),
        (("--aggregation", "last"), b"", 2, "last"),
        (("--batch-size", "0"), b"", 2, "batch-size"),
        ((), b"", 0, ""),
    ],
)
def test_mistakes(arguments: tuple[str, ...], stdin: bytes, code: int, message: str, folder: Path) -> None:
    result = call_here("predict", "model", *arguments, folder=folder, stdin=stdin)
    assert result.code == code, result.err
    assert message in result.err
    assert len(result.err.splitlines()) == (0 if code == 0 else 1) or code == 2


def test_what_came_before_a_mistake_is_written(folder: Path) -> None:
    result = call_here("predict", "model", folder=folder, stdin=b"anna\nben\nb\xe9d\n")
    assert [json.loads(line)["text"] for line in result.out.splitlines()] == ["anna", "ben"]


def test_a_terminal_is_not_steered(folder: Path) -> None:
    result = call_here("predict", "model", "--to", "pretty", folder=folder, stdin=b"anna \x1b[2J lives\n")
    assert "\x1b" not in result.out
    assert "\\x1b" in result.out


@pytest.mark.parametrize("lines", [100_000, 3])
def test_a_reader_that_has_enough_is_no_error(folder: Path, lines: int) -> None:
    (folder / "many.txt").write_text("anna lives\n" * lines)
    process = subprocess.Popen(
        [*COMMAND, "predict", "model", "many.txt"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    if lines > 3:  # or it reads nothing at all
        assert process.stdout.readline().startswith(b'{"text": "anna lives"')
    process.stdout.close()
    assert process.stderr.read() == b""  # and it ends long before the file does
    process.stderr.close()
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE


def test_evaluate(folder: Path) -> None:
    table = call_here("evaluate", "model", "data", "--part", "dev", "--predictions", "scored.conll", folder=folder)
    assert table.code == 0, table.err
    assert "entity (conlleval)" in table.out
    assert "gold entities" in table.out
    values = call_here("evaluate", "model", "data", "--part", "dev", "--json", folder=folder).data
    file = call_here("evaluate", "model", "data/dev.conll", "--json", folder=folder).data
    assert file == values
    gold = sum(values["accounting"][name] for name in ("found", "wrong_type", "wrong_boundary", "missed"))
    assert gold == values["accounting"]["gold"]
    scored = read_conll(folder / "scored.conll", tag_column=1)
    assert [sentence.tags for sentence in scored] == [s.tags for s in read_conll(folder / "data" / "dev.conll")]
    again = call_here("evaluate", "model", "data", "--predictions", "scored.conll", folder=folder)
    assert (again.code, again.out) == (1, "")
    assert "--overwrite" in again.err


def test_gold_types_the_model_does_not_know_are_counted(folder: Path) -> None:
    (folder / "other.conll").write_text("anna B-PER\nran O\n\nrain S-WEATHER\n".replace("S-", "B-"))
    result = call_here("evaluate", "model", "other.conll", folder=folder)
    assert result.code == 0, result.err
    assert "types the model does not know, which it cannot find: WEATHER 1" in result.err
