"""Every hostile model folder is refused with the file and the reason, and without taking memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hostile_folders import CASES, MEMORY, Case, refusal
from tiny import write_tiny_model

from minitl.models import BertForTokenClassification


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("good"))


def test_there_are_at_least_40() -> None:
    assert len(CASES) >= 40
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_refused(case: Case, good: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "folder"))
    case.damage(folder)
    message, _, memory = refusal(folder)
    assert message.startswith(f"{folder}")
    assert case.file in message
    assert case.reason in message
    assert all(line.isprintable() for line in message.splitlines())
    assert len(message) < 3000
    assert memory < MEMORY


def test_links_to_good_files_are_followed(good: Path, tmp_path: Path) -> None:
    """As they are in the cache of huggingface_hub."""
    for path in good.iterdir():
        (tmp_path / path.name).symlink_to(path)
    assert BertForTokenClassification.from_pretrained(tmp_path).tokenizer is not None


def test_harmless_kinds_of_tokenizer_parts_are_read(good: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(good, tmp_path / "folder"))
    state = json.loads((folder / "tokenizer.json").read_text())
    state["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}, state["normalizer"]]}
    state["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Whitespace"}, {"type": "BertPreTokenizer"}],
    }
    (folder / "tokenizer.json").write_text(json.dumps(state))
    model = BertForTokenClassification.from_pretrained(folder)
    assert model.tokenizer is not None
    assert model.tokenizer.encode_words(["Anna", "lives"]) == [[5], [6]]
