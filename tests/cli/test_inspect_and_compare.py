"""``minitl inspect`` and ``minitl compare``: numbers that can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_tools import call_here
from tiny import write_tiny_data, write_tiny_model

from minitl.metrics.comparison import compare_taggers
from minitl.text import Sentence, write_conll

LONG = "one two three four five"


def conll(*sentences: str) -> str:
    """Sentences of words; one in capitals is a place."""
    return "\n".join("".join(f"{w} {'B-LOC' if w.isupper() else 'O'}\n" for w in s.split()) for s in sentences)


def test_data(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train").write_text(conll("OSLO is cold", f"{LONG} ROME", LONG, LONG))
    (folder / "dev").write_text(conll("OSLO is old"))
    (folder / "test").write_text(conll(f"{LONG} ROME", "PARIS", "x y"))
    result = call_here("inspect", "data", "--json", folder=tmp_path)
    assert result.code == 1  # a test sentence is in train
    report = result.data
    assert report["train"]["labels"] == {"O": 17, "B-LOC": 2}
    assert report["train"]["sentences that occur again"] == 1
    assert report["test"]["sentences of 5 words and more that are in train, too"] == 1
    assert report["test"]["entities that are not in train"] == "1 of 2"
    assert report["test"]["words in a sentence"] == {"median": 2, "95 %": 5, "longest": 6}
    assert report["faults"] == ["test: 1 of 1 sentences are in train, too"]
    write_tiny_model(tmp_path / "model")
    text = call_here("inspect", "data", "--model", "model", folder=tmp_path)
    assert "words with [UNK]" in text.out
    (folder / "test").write_text("a B-LOC\nb I-PER\n")
    broken = call_here("inspect", "data", folder=tmp_path)
    assert (broken.code, broken.out) == (1, "")
    assert "data/test:2" in broken.err
    assert call_here("inspect", "corpus", folder=tmp_path).code == 0


def test_models_and_weights(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model")
    report = call_here("inspect", "model", "--json", "--tensors", folder=tmp_path).data
    assert report["parameters"] == sum(int(np.prod(shape)) for _, shape in report["tensors"].values())
    assert report["sizes"]["hidden_size"] == 16
    weights = call_here("inspect", "model/model.safetensors", "--json", "--tensors", folder=tmp_path).data
    assert weights["numbers"] == report["parameters"]
    assert weights["bytes"] == 4 * weights["numbers"]
    assert weights["tensors"]["classifier.bias"] == ["F32", [2]]
    nothing = call_here("inspect", "nowhere", folder=tmp_path)
    assert (nothing.code, nothing.out) == (1, "")
    assert "neither a folder nor" in nothing.err


def test_a_comparison_by_hand() -> None:
    gold = [["B-X"], ["B-X"], ["O"], ["B-X"]]
    first = [["B-X"], ["O"], ["B-X"], ["O"]]  # 1 right, 1 wrong, 2 missed
    second = [["B-X"], ["B-X"], ["O"], ["O"]]  # 2 right, 1 missed
    result = compare_taggers(gold, first, second, [0, 0, 1, 1], resamples=2000)
    assert (result.first.value, result.second.value) == (2 / 5, 4 / 5)
    # of two documents, four test sets: 2/3 and 1, 0 and 0, and twice the whole
    assert (result.difference.low, result.difference.high) == (0.0, pytest.approx(4 / 5 - 2 / 5))
    assert abs(result.not_better - 0.25) < 0.05  # 5 standard deviations of 2,000 draws
    assert result.groups == 2
    same = compare_taggers(gold, first, first, range(4))
    assert (same.difference.low, same.difference.high, same.not_better) == (0, 0, 1)
    with pytest.raises(ValueError, match="a group for each of 4 sentences"):
        compare_taggers(gold, first, second, [0])


def test_compare(tmp_path: Path) -> None:
    words = [Sentence((f"w{number}", "x"), ("B-A", "O"), document=number // 2) for number in range(40)]
    right = [["B-A", "O"]] * 40
    wrong = [["O", "O"] if number % 3 else ["B-A", "O"] for number in range(40)]
    write_conll(tmp_path / "one.conll", words, wrong)
    write_conll(tmp_path / "two.conll", words, right)
    result = call_here("compare", "one.conll", "two.conll", folder=tmp_path)
    assert result.code == 0, result.err
    assert "over 20 documents" in result.out
    assert "the second is better" in result.out
    assert "is worse" in call_here("compare", "two.conll", "one.conll", folder=tmp_path).out
    assert "no difference" in call_here("compare", "two.conll", "two.conll", folder=tmp_path).out
    assert call_here("compare", "one.conll", "two.conll", "--json", folder=tmp_path).data["unit"] == "documents"
    write_conll(tmp_path / "other.conll", words[:39], right[:39])
    other = call_here("compare", "one.conll", "other.conll", folder=tmp_path)
    assert (other.code, other.out) == (1, "")
    assert "not the same data" in other.err
    write_tiny_data(tmp_path / "data")
    assert call_here("compare", "one.conll", "data/test.conll", folder=tmp_path).code == 1
