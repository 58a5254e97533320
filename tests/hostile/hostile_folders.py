"""Model folders as a stranger may make them, and what has to be said of each.

``python tests/hostile/hostile_folders.py`` prints how long each refusal takes, and how much memory.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tiny import write_tiny_model

from minitl.errors import CheckpointError
from minitl.models import BertForTokenClassification

CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
TOKENIZER, SETTINGS, VOCABULARY = "tokenizer.json", "tokenizer_config.json", "vocab.txt"
MEMORY = 64 * 2**20  # bytes beyond the size of the folder


@dataclass(frozen=True)
class Case:
    """What is done to a good folder, the file that the message must name, and the reason it must give."""

    name: str
    file: str
    reason: str
    damage: Callable[[Path], object]


def edited(file: str, **changes: Any) -> Callable[[Path], object]:
    """Change keys of a JSON file; a key such as "model.vocab" goes into objects, None removes it."""

    def damage(folder: Path) -> None:
        values = json.loads((folder / file).read_text())
        for key, value in changes.items():
            inner = values
            *outer, last = key.split("__")
            for part in outer:
                inner = inner[part]
            inner[last] = value(inner[last]) if callable(value) else value
        (folder / file).write_text(json.dumps(values))

    return damage


def written(file: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes(content)


def replaced(file: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        (folder / file).unlink()
        make(folder / file)

    return damage


def sparse(file: str, size: int) -> Callable[[Path], object]:
    """A file that is large and takes no space."""
    return lambda folder: os.truncate(folder / file, size)


def indexed(weight_map: Any, prepare: Callable[[Path], object] = lambda folder: None) -> Callable[[Path], object]:
    """Rename the weights to a shard, and list them as ``weight_map`` says (a function of the names, or as it is)."""

    def damage(folder: Path) -> None:
        from minitl.models.safetensors_file import read_header

        names = list(read_header(folder / WEIGHTS))
        (folder / WEIGHTS).rename(folder / "a.safetensors")
        (folder / INDEX).write_text(
            json.dumps({"weight_map": weight_map(names) if callable(weight_map) else weight_map})
        )
        prepare(folder)

    return damage


def all_in(file: str) -> Callable[[list[str]], dict[str, str]]:
    return lambda names: dict.fromkeys(names, file)


def without_json(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    """Leave vocab.txt as the only vocabulary."""

    def both(folder: Path) -> None:
        (folder / TOKENIZER).unlink()
        damage(folder)

    return both


def linked_outside(file: str, target: str) -> Callable[[Path], object]:
    return replaced(file, lambda path: path.symlink_to(target))


DEEP = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
REGEX = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b"}
SPLIT = {"type": "Split", "pattern": {"Regex": "(a|a)*b"}, "behavior": "Isolated", "invert": False}

CASES = [
    # configurations
    Case("a billion layers", CONFIG, "num_hidden_layers", edited(CONFIG, num_hidden_layers=10**9)),
    Case("a vocabulary of 2^31", CONFIG, "must be between", edited(CONFIG, vocab_size=2**31)),
    Case("the largest vocabulary", "", "shape", edited(CONFIG, vocab_size=2**31 - 1)),
    Case("a hidden size of 10^9", CONFIG, "hidden_size", edited(CONFIG, hidden_size=10**9 + 1)),
    Case("a hidden size of 10^18", CONFIG, "hidden_size must be between", edited(CONFIG, hidden_size=10**18)),
    Case("no heads", CONFIG, "num_attention_heads must be between", edited(CONFIG, num_attention_heads=0)),
    Case("minus one layer", CONFIG, "num_hidden_layers must be between", edited(CONFIG, num_hidden_layers=-1)),
    Case("true layers", CONFIG, "num_hidden_layers must be a whole number", edited(CONFIG, num_hidden_layers=True)),
    Case("half a layer", CONFIG, "num_hidden_layers must be a whole number", edited(CONFIG, num_hidden_layers=1.5)),
    Case("layers as a word", CONFIG, "num_hidden_layers must be a whole number", edited(CONFIG, num_hidden_layers="2")),
    Case("heads that do not divide", CONFIG, "must be divisible", edited(CONFIG, num_attention_heads=3)),
    Case("a dropout of one", CONFIG, "hidden_dropout_prob must be at least", edited(CONFIG, hidden_dropout_prob=1.0)),
    Case("not a number", CONFIG, "NaN is not JSON", written(CONFIG, b'{"hidden_dropout_prob": NaN}')),
    Case("infinity", CONFIG, "is too large", written(CONFIG, b'{"hidden_dropout_prob": 1e999}')),
    Case("an integer of a million digits", CONFIG, "is too large", written(CONFIG, b'{"a": ' + b"9" * 10**6 + b"}")),
    Case("a decoder", CONFIG, "is_decoder", edited(CONFIG, is_decoder=True)),
    Case("another activation", CONFIG, "hidden_act", edited(CONFIG, hidden_act="__import__('os').system('x')")),
    Case("another kind of model", CONFIG, "model_type", edited(CONFIG, model_type="gpt2")),
    Case("a billion labels", CONFIG, "num_labels", edited(CONFIG, num_labels=10**9, id2label=None, label2id=None)),
    Case("labels with holes", CONFIG, "without a gap", edited(CONFIG, id2label={"0": "O", "7": "B-X"}, label2id=None)),
    Case("one name for two labels", CONFIG, "to both", edited(CONFIG, id2label={"0": "O", "1": "O"}, label2id=None)),
    Case("labels that steer", CONFIG, "cannot be printed", edited(CONFIG, id2label={"0": "\x1b[2J"}, label2id=None)),
    Case("nested 100,000 deep", CONFIG, "nested too deeply", written(CONFIG, DEEP)),
    Case("a key twice", CONFIG, "duplicate key", written(CONFIG, b'{"vocab_size": 1, "vocab_size": 2}')),
    Case("a list", CONFIG, "must hold a JSON object", written(CONFIG, b"[]")),
    Case("nothing", CONFIG, "is not JSON", written(CONFIG, b"")),
    Case("NULs", CONFIG, "is not JSON", written(CONFIG, bytes(100))),
    Case("not UTF-8", CONFIG, "is not UTF-8", written(CONFIG, b'{"a": "\xff"}')),
    Case("half of a surrogate pair", CONFIG, "lone surrogate", written(CONFIG, b'{"a": "\\ud800"}')),
    Case("100 MB", CONFIG, "more than the", sparse(CONFIG, 10**8)),
    Case("a folder", CONFIG, "is not a regular file", replaced(CONFIG, lambda path: path.mkdir())),
    Case("a pipe", CONFIG, "is not a regular file", replaced(CONFIG, os.mkfifo)),
    Case("a device that never ends", CONFIG, "is not a regular file", linked_outside(CONFIG, "/dev/zero")),
    Case("a link to itself", CONFIG, "", linked_outside(CONFIG, CONFIG)),
    # indexes of shards
    Case("a shard above the folder", INDEX, "must be the plain name", indexed(all_in("../a.safetensors"))),
    Case("a shard at an absolute path", INDEX, "must be the plain name", indexed(all_in("/etc/passwd.safetensors"))),
    Case("a shard on a Windows drive", INDEX, "must be the plain name", indexed(all_in("C:a.safetensors"))),
    Case("a shard with a NUL", INDEX, "must be the plain name", indexed(all_in("a\0.safetensors"))),
    Case("a pickle as a shard", INDEX, "must be the plain name", indexed(all_in("pytorch_model.bin"))),
    Case("a number as a shard", INDEX, "must be the plain name", indexed(all_in(7))),  # type: ignore[arg-type]
    Case("a list of shards", INDEX, "weight_map must map", indexed(["a.safetensors"])),
    Case("no shards", INDEX, "weight_map must map", indexed({})),
    Case("a shard that is missing", "b.safetensors", "does not exist", indexed(all_in("b.safetensors"))),
    Case(
        "a shard that is a pipe", "b.safetensors", "is not a regular file",
        indexed(all_in("b.safetensors"), lambda folder: os.mkfifo(folder / "b.safetensors")),
    ),
    Case(
        "tensors that no shard holds", INDEX, "their shards do not hold",
        indexed(lambda names: dict.fromkeys([*names, "ghost"], "a.safetensors")),
    ),
    Case(
        "a tensor in two shards", "", "is in two shards",
        indexed(
            lambda names: {name: ("a", "b")[number % 2] + ".safetensors" for number, name in enumerate(names)},
            lambda folder: shutil.copy(folder / "a.safetensors", folder / "b.safetensors"),
        ),
    ),
    # weights
    Case("a pickle", "", "never reads one", lambda folder: (folder / WEIGHTS).rename(folder / "pytorch_model.bin")),
    Case("a terabyte of nothing", WEIGHTS, "bytes of data, the file holds", sparse(WEIGHTS, 2**40)),
    Case("a header of 2^63 bytes", WEIGHTS, "the header claims", written(WEIGHTS, b"\xff" * 7 + b"\x7f" + b"{}")),
    Case("a web page", WEIGHTS, "the header claims", written(WEIGHTS, b"<!DOCTYPE html><html></html>")),
    Case("a pointer of Git LFS", WEIGHTS, "git lfs pull", written(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\n")),
    # tokenizers
    Case("another tokenizer", TOKENIZER, "found 'BPE'", edited(TOKENIZER, model__type="BPE")),
    Case("no vocabulary", TOKENIZER, "model.vocab must map", edited(TOKENIZER, model__vocab={})),
    Case("a vocabulary as a list", TOKENIZER, "model.vocab must map", edited(TOKENIZER, model__vocab=["a"])),
    Case(
        "a token number of 2^32", TOKENIZER, "it must be 0 to",
        edited(TOKENIZER, model__vocab=lambda vocab: {**vocab, "evil": 2**32 - 1}),
    ),
    Case(
        "a negative token number", TOKENIZER, "it must be 0 to",
        edited(TOKENIZER, model__vocab=lambda vocab: {**vocab, "evil": -1}),
    ),
    Case(
        "one number for two tokens", TOKENIZER, "gives one number to several tokens",
        edited(TOKENIZER, model__vocab=lambda vocab: {**vocab, "evil": 1}),
    ),
    Case(
        "words of a billion characters", TOKENIZER, "max_input_chars_per_word",
        edited(TOKENIZER, model__max_input_chars_per_word=10**9),
    ),
    Case("a pattern that never ends", TOKENIZER, "normalizer is 'Replace'", edited(TOKENIZER, normalizer=REGEX)),
    Case(
        "such a pattern within", TOKENIZER, "normalizer is 'Replace'",
        edited(TOKENIZER, normalizer={"type": "Sequence", "normalizers": [REGEX]}),
    ),
    Case("a split by such a pattern", TOKENIZER, "pre_tokenizer is 'Split'", edited(TOKENIZER, pre_tokenizer=SPLIT)),
    Case("an added token as a list", TOKENIZER, "added_tokens must be", edited(TOKENIZER, added_tokens=[["a"]])),
    Case(
        "an added token of number 2^32", TOKENIZER, "added_tokens gives",
        edited(TOKENIZER, added_tokens=[{"id": 2**32 - 1, "content": "evil"}]),
    ),
    Case("a tokenizer cut in half", TOKENIZER, "is not JSON", lambda folder: os.truncate(folder / TOKENIZER, 700)),
    Case("a tokenizer of a gigabyte", TOKENIZER, "more than the", sparse(TOKENIZER, 10**9)),
    Case("a tokenizer that is a pipe", TOKENIZER, "is not a regular file", replaced(TOKENIZER, os.mkfifo)),
    Case("a lower case of yes", SETTINGS, "do_lower_case must be", edited(SETTINGS, do_lower_case="yes")),
    Case("a special token of 3", SETTINGS, "cls_token must be", edited(SETTINGS, cls_token=3)),
    Case("settings that are no JSON", SETTINGS, "is not JSON", written(SETTINGS, b"{'a': 1}")),
    Case("a vocabulary of bytes", VOCABULARY, "UTF-8", without_json(written(VOCABULARY, bytes(range(256))))),
    Case("a vocabulary of a gigabyte", VOCABULARY, "more than the", without_json(sparse(VOCABULARY, 10**9))),
    Case("a vocabulary without [CLS]", "", "missing", without_json(written(VOCABULARY, b"a\nb\n"))),
]  # fmt: skip


def refusal(folder: Path) -> tuple[str, float, int]:
    """Load a folder that must be refused; the message, the seconds and the largest memory it took."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        BertForTokenClassification.from_pretrained(folder)
    except CheckpointError as error:
        seconds = time.perf_counter() - start
        return str(error), seconds, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    raise AssertionError(f"{folder} was loaded")


def main() -> None:
    work = Path(tempfile.mkdtemp(prefix="minitl-hostile-"))
    good = write_tiny_model(work / "good")
    BertForTokenClassification.from_pretrained(good)  # imports what is imported late
    slowest = 0.0
    for number, case in enumerate(CASES):
        folder = Path(shutil.copytree(good, work / str(number)))
        case.damage(folder)
        message, seconds, memory = refusal(folder)
        slowest = max(slowest, seconds)
        print(
            f"{1000 * seconds:6.1f} ms {memory / 2**20:6.1f} MB  {case.name}: {message.replace(str(folder), '')[:110]}"
        )
    print(f"{len(CASES)} folders refused, the slowest in {1000 * slowest:.0f} ms")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
