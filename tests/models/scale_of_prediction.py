"""Prediction on very many and very large inputs: nothing is lost or moved, and nothing grows that should not.

    python tests/models/scale_of_prediction.py               all of it; about half an hour
    python tests/models/scale_of_prediction.py --sample      a minute
    python tests/models/scale_of_prediction.py --only strings --only pipe --seed 3

code-points    every code point as a word, alone and inside one: as many tags as words
strings        1,000,000 random strings: words and entities reproduce their characters, in order, without overlap
long           a sentence of 100,000 words, a file that is one word of 10 MB: time and memory are linear
pipe           1,000,000 sentences through the real `minitl predict`: order, numbers, memory; and `| head -1`

Exit code: 0, or 1 when anything did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("NUMBA_NUM_THREADS", "1")  # for a model as small as this one, threads are only in the way
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cli_tools import COMMAND
from models.scale_strings import random_strings, write_eager_model

from minitl.models import BertForTokenClassification
from minitl.text.decoding import AGGREGATIONS
from minitl.text.words import split_words

AT_ONCE = 2000  # strings
GROWTH_ALLOWED = 50.0  # MB, of the pipe after its first tenth
# For four times the input, linear work takes four times as long and quadratic work sixteen times; other programs on the
# machine cost a little, too, so that nothing is said of what takes less than this many seconds.
LARGEST_RATIO, QUICK = 9.0, 0.5
# A word has its tag, score, probabilities, pieces and windows; a character of a word of megabytes is read, split and
# written a few times, and must not be kept as an object.
MOST_BYTES = {"word": 1500, "byte": 40}


class Failed(Exception):
    """Something did not hold."""


def check(condition: object, message: str) -> None:
    if not condition:
        raise Failed(message)


# -- every code point --------------------------------------------------------------------------------------------------


def code_points(folder: Path, arguments: argparse.Namespace) -> Iterator[str]:
    model = BertForTokenClassification.from_pretrained(folder)
    points = range(0, sys.maxunicode + 1, 97 if arguments.sample else 1)
    for begin in range(0, len(points), AT_ONCE):
        part = points[begin : begin + AT_ONCE]
        sentences = [[chr(point), "anna", f"in{chr(point)}oslo"] for point in part]
        aggregation = AGGREGATIONS[begin // AT_ONCE % 3]
        for words, tagged in zip(sentences, model.tag_words(sentences, aggregation=aggregation), strict=True):
            check(len(tagged.tags) == len(tagged.scores) == len(words), f"{words!r} has the tags {tagged.tags}")
            check(all(0 < score <= 1 + 1e-12 for score in tagged.scores), f"{words!r} has the scores {tagged.scores}")
        for words in sentences:
            _check_words(" ".join(words))
    yield f"{len(points):,} code points, {3 * len(points):,} words and tags"


def _check_words(text: str) -> set[int]:
    """Check the words of a text; return where words begin and end."""
    words = split_words(text)
    end = 0
    for word in words:
        check(text[word.start : word.end] == word.text, f"{text!r}: the word {word} is not what stands there")
        check(word.text and not any(map(str.isspace, word.text)), f"{text!r}: {word} holds whitespace")
        check(end <= word.start and not text[end : word.start].strip(), f"{text!r}: lost before {word}")
        end = word.end
    check(not text[end:].strip(), f"{text!r}: lost at the end")
    return {place for word in words for place in (word.start, word.end)}


# -- random strings ----------------------------------------------------------------------------------------------------


def strings(folder: Path, arguments: argparse.Namespace) -> Iterator[str]:
    model = BertForTokenClassification.from_pretrained(folder)
    count = 20_000 if arguments.sample else 1_000_000
    entities = characters = 0
    for begin in range(0, count, AT_ONCE):
        texts = random_strings(AT_ONCE, f"{arguments.seed} {begin}")
        found = model.tag_texts(
            texts, aggregation=AGGREGATIONS[begin // AT_ONCE % 3], constrained=begin // AT_ONCE % 2 == 1
        )
        check(len(found) == len(texts), f"{len(found)} answers for {len(texts)} texts")
        for text, spans in zip(texts, found, strict=True):
            places = _check_words(text)
            for span in spans:
                check(text[span.start : span.end] == span.text, f"{text!r}: {span} is not what stands there")
                check(0 <= span.start < span.end <= len(text), f"{text!r}: {span} is outside")
                check({span.start, span.end} <= places, f"{text!r}: {span} is not made of words")
                check(span.label in ("PER", "LOC") and 0 < span.score <= 1 + 1e-12, f"{text!r}: {span}")
            check(all(one.end <= other.start for one, other in pairwise(spans)), f"{text!r}: {spans} overlap")
            entities += len(spans)
        characters += sum(map(len, texts))
    check(entities > count / 2, f"only {entities} entities: the check is about nothing")
    yield f"{count:,} strings of {characters:,} characters, {entities:,} entities"


# -- long inputs -------------------------------------------------------------------------------------------------------


def long(folder: Path, arguments: argparse.Namespace) -> Iterator[str]:
    model = BertForTokenClassification.from_pretrained(folder)
    scale = 10 if arguments.sample else 1
    words = [f"{name}{number}" for number in range(100_000 // scale // 4) for name in ("anna", "in", "oslo", "x")]
    for name, work in {
        "tag_words": lambda part: model.tag_words([part]),
        "tag_words, constrained": lambda part: model.tag_words([part], constrained=True, aggregation="average"),
        "tag_texts": lambda part: model.tag_texts([" ".join(part)]),
    }.items():
        sizes = [len(words) // 4, len(words) // 2, len(words)]
        measured = [_time_and_memory(lambda size=size, work=work: work(words[:size])) for size in sizes]
        yield _linear(f"{name}, {len(words):,} words", sizes, measured, "word")
    for unit in ("a-",) if arguments.sample else ("a-", "a", "1,", "é", "a\u0301"):
        sizes = [size // scale for size in (2_500_000, 5_000_000, 10_000_000)]
        measured = [_predicted(folder, (unit * size).encode()[:size].decode(errors="ignore")) for size in sizes]
        yield _linear(f"a file of one word, {unit!r}, {sizes[-1]:,} bytes", sizes, measured, "byte")


def _time_and_memory(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, the less of two times, and the most MB of Python and NumPy."""
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return min(seconds), peak


def _predicted(folder: Path, word: str) -> tuple[float, float]:
    """Seconds and MB of the largest memory of `minitl predict` for a file that is one word, beyond those for `a`."""
    figures = []
    for text in ("a", word):
        file = folder.parent / "one-word.txt"
        file.write_text(text + "\n", encoding="utf-8")
        began = time.perf_counter()
        memory: list[float] = []
        with subprocess.Popen([*COMMAND, "predict", str(folder), str(file)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            watching = threading.Thread(target=_watch, args=(process, memory))
            watching.start()
            record = json.loads(process.stdout.read())
            watching.join()
        check(process.returncode == 0 and record["text"] == text, f"{text[:20]!r}...: code {process.returncode}")
        figures.append((time.perf_counter() - began, max(memory)))
    return figures[1][0] - figures[0][0], figures[1][1] - figures[0][1]


def _linear(name: str, sizes: list[int], measured: list[tuple[float, float]], unit: str) -> str:
    seconds, megabytes = zip(*measured, strict=True)
    ratios = [later / max(earlier, 0.02) for earlier, later in pairwise(seconds)]
    slow = f"{name}: {seconds[0]:.2f} s for a quarter, {seconds[-1]:.2f} s for all"
    check(seconds[-1] < LARGEST_RATIO * max(seconds[0], QUICK), slow)
    each = [2**20 * memory / size for memory, size in zip(megabytes, sizes, strict=True)]
    check(each[-1] < MOST_BYTES[unit], f"{name}: {each[-1]:.0f} bytes a {unit}, {MOST_BYTES[unit]} are allowed")
    return (
        f"{name}: {', '.join(f'{one:.2f}' for one in seconds)} s (times {', '.join(f'{one:.1f}' for one in ratios)}), "
        f"{', '.join(f'{one:.0f}' for one in megabytes)} MB ({', '.join(f'{one:.0f}' for one in each)} bytes a {unit})"
    )


# -- the pipe ----------------------------------------------------------------------------------------------------------


def sentence(number: int) -> str:
    """Short, and known from its number."""
    return f"anna {number} met Ben O'Brien in {number % 977}-oslo, and 東京 👋."


def pipe(folder: Path, arguments: argparse.Namespace) -> Iterator[str]:
    count = 20_000 if arguments.sample else 1_000_000
    command = [*COMMAND, "predict", str(folder)]
    memory: list[float] = []
    entities, began = 0, time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        feeding = threading.Thread(target=_feed, args=(process.stdin, count))
        feeding.start()
        for number, line in _numbered(process.stdout, count):
            entities += _checked_line(line, number)
            # a tenth of the results, not of the time: where kernels are not compiled yet, starting takes most of it
            if number >= count // 10 and number % 100 == 0:
                memory += _memory(process, "VmRSS:")
        said, code = process.stderr.read(), process.wait()
        feeding.join()
    seconds = time.perf_counter() - began
    check(code == 0 and said == b"", f"exit code {code}, standard error {said[:300]!r}")
    check(len(memory) > 10, f"{len(memory)} samples of memory say nothing")
    growth = max(memory) - memory[0]
    check(growth < GROWTH_ALLOWED, f"memory grew from {memory[0]:.1f} to {max(memory):.1f} MB")
    yield (
        f"{count:,} sentences, {entities:,} entities, {seconds:.0f} s, {1e6 * seconds / count:.0f} µs each; memory "
        f"{memory[0]:.1f} MB after a tenth, at most {max(memory):.1f} MB ({len(memory):,} samples)"
    )
    _check_head(folder)
    yield "| head -1: exit code 141, nothing on standard error"


def _feed(stream: object, count: int) -> None:
    with suppress(BrokenPipeError), stream:  # type: ignore[attr-defined]  # when a check has failed
        for begin in range(0, count, AT_ONCE):
            lines = "".join(sentence(number) + "\n" for number in range(begin, min(begin + AT_ONCE, count)))
            stream.write(lines.encode())  # type: ignore[attr-defined]


def _watch(process: subprocess.Popen[bytes], memory: list[float]) -> None:
    """Note the most that a process has had of memory, in MB, a hundred times a second until it ends."""
    while process.poll() is None:
        memory += _memory(process, "VmHWM:")
        time.sleep(0.01)


def _memory(process: subprocess.Popen[bytes], field: str) -> list[float]:
    """Return a field of /proc/PID/status in MB; empty when the process has just ended."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return [int(line.split()[1]) / 1024 for line in lines if line.startswith(field)]


def _numbered(stream: object, count: int) -> Iterator[tuple[int, bytes]]:
    number = -1
    for number, line in enumerate(stream):  # type: ignore[arg-type,var-annotated]
        yield number, line
    check(number == count - 1, f"{number + 1} results for {count} sentences")


def _checked_line(line: bytes, number: int) -> int:
    """Check a result; return how many entities it has."""
    record, text = json.loads(line), sentence(number)
    check(record["text"] == text, f"result {number} is {record['text']!r} instead of {text!r}")
    for one in record["entities"]:
        check(text[one["start"] : one["end"]] == one["text"], f"result {number}: {one} is not what stands there")
    return len(record["entities"])


def _check_head(folder: Path) -> None:
    """`| head -1` ends quietly."""
    file = folder.parent / "many.txt"
    file.write_text("".join(sentence(number) + "\n" for number in range(100_000)), encoding="utf-8")
    with subprocess.Popen(
        [*COMMAND, "predict", str(folder), str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        head = subprocess.run(["head", "-1"], stdin=process.stdout, capture_output=True, check=True)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said, code = process.stderr.read(), process.wait()
    _checked_line(head.stdout, 0)
    check(code == 128 + signal.SIGPIPE and said == b"", f"| head -1: exit code {code}, standard error {said[:300]!r}")


CHECKS = {"code-points": code_points, "strings": strings, "long": long, "pipe": pipe}


def main() -> int:
    """Run the checks and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(CHECKS), help="this one, and others that are named")
    parser.add_argument("--sample", action="store_true", help="a fiftieth of it")
    parser.add_argument("--seed", type=int, default=0, help="of the random strings")
    arguments = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as work:
        folder = write_eager_model(Path(work) / "model")
        for name in arguments.only or CHECKS:
            print(name, flush=True)
            began = time.monotonic()
            try:
                for line in CHECKS[name](folder, arguments):
                    print(f"  {line}", flush=True)
            except Failed as failure:
                failures += 1
                print(f"  FAILED (seed {arguments.seed}): {failure}")
            print(f"  {time.monotonic() - began:.0f} s", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
