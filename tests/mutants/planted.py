"""The list of planted faults: reading it, checking it against the code, and the table of which test finds which."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
TABLE = Path("docs", "mutants.md")

INTRODUCTION = """\
# Planted faults

Do the tests notice a mistake? Each row below is one that was planted on purpose: a few characters of the code were
changed in a copy, the tests that belong there were run, and the first one that failed is named. A fault that no test
noticed would be reported, and `.ci/run` would fail.

`python tests/mutants/run.py --update` plants all of them and writes this page; nobody edits it. Without `--update` it
checks that the page is still true. `python tests/mutants/run.py NAME` plants one and shows how it was found. The faults
themselves are in `tests/mutants/`, one file a topic.
"""
ROW = re.compile(r"\| (\d+) \| `([^`]*)`: (.*) \| `(.*)` \| `(.*)` \|")


@dataclass(frozen=True)
class Mutant:
    """One fault: in ``file``, ``old`` becomes ``new``.

    Attributes:
        topic: heading under which the table lists it.
        name: of words and hyphens, unique.
        file: path in the repository, of a Python module.
        old, new: text; ``old`` occurs exactly once in the file.
        tests: pytest's arguments for the tests that should notice.
        fault: what is wrong now, in a sentence.
        kernels: what minitl computes with in these tests: ``"reference"``, where nothing needs to be compiled, or
            ``"auto"``, for a fault in compiled code.
    """

    topic: str
    name: str
    file: str
    old: str
    new: str
    tests: str
    fault: str
    kernels: str = "reference"

    def applied(self, source: str) -> str:
        """Return ``source`` with the fault in it.

        Raises:
            ValueError: ``old`` does not occur exactly once.
        """
        count = source.count(self.old)
        if count != 1:
            raise ValueError(f"{self.name}: the text to change occurs {count} times in {self.file}, expected once")
        return source.replace(self.old, self.new)


def load(folder: Path = FOLDER) -> list[Mutant]:
    """Read the faults of every topic, in the order of the files' names.

    Raises:
        TypeError: an entry has a key too many or too few.
    """
    mutants = []
    for path in sorted(folder.glob("*.toml")):
        topic = tomllib.loads(path.read_text(encoding="utf-8"))
        mutants += [Mutant(topic["topic"], **entry) for entry in topic["mutant"]]
    return mutants


def problems(mutants: Sequence[Mutant], root: Path) -> list[str]:
    """Return what is wrong with the list, a line each; nothing is run for it."""
    found = [
        f"{name}: {count} mutants of this name" for name, count in Counter(m.name for m in mutants).items() if count > 1
    ]
    for mutant in mutants:
        found += [f"{mutant.name}: {problem}" for problem in _problems(mutant, root)]
    return found


def _problems(mutant: Mutant, root: Path) -> list[str]:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", mutant.name):
        return ["the name is not of words and hyphens"]
    if not re.fullmatch(r"[^|\n]+\.", mutant.fault):
        return ["the fault is no sentence on one line"]
    if not (root / mutant.file).is_file():
        return [f"there is no {mutant.file}"]
    paths = [word.partition("::")[0] for word in shlex.split(mutant.tests) if word.startswith("tests")]
    if not paths or not all((root / path).exists() for path in paths):
        return [f"the tests {mutant.tests!r} are not there"]
    source = (root / mutant.file).read_text(encoding="utf-8")
    if source.count(mutant.old) != 1:
        return [f"the text to change occurs {source.count(mutant.old)} times in {mutant.file}, expected once"]
    if mutant.old.split() == mutant.new.split():
        return ["nothing but spaces changes"]
    if not mutant.file.endswith(".py"):  # CUDA C++: where it does not compile, the tests find that and nothing else
        return []
    try:
        compile(mutant.applied(source), mutant.file, "exec", dont_inherit=True)
    except SyntaxError as error:
        return [f"the changed {mutant.file} does not compile: {error}"]
    return []


def function_of(test: str) -> str:
    """Return a test's node id without its parameters: of ``tests/test_x.py::test_y[1-2]`` all before ``[``."""
    return test.partition("[")[0]


def table(mutants: Sequence[Mutant], killers: Mapping[str, str]) -> str:
    """Return the page: what is planted, and which test (by the mutant's name) found it."""
    lines = [INTRODUCTION, f"{len(mutants)} faults planted, {len(killers)} found."]
    topic = ""
    for number, mutant in enumerate(mutants, start=1):
        if mutant.topic != topic:
            topic = mutant.topic
            lines += ["", f"## {topic}", "", "| number | fault | file | found by |", "|---|---|---|---|"]
        killer = function_of(killers.get(mutant.name, "no test"))
        lines.append(f"| {number} | `{mutant.name}`: {mutant.fault} | `{mutant.file}` | `{killer}` |")
    return "\n".join(lines) + "\n"


def listed(page: str) -> dict[str, tuple[str, ...]]:
    """Read a page back: name -> (number, fault, file, found by)."""
    rows = (ROW.fullmatch(line) for line in page.splitlines())
    return {row[2]: (row[1], row[3], row[4], row[5]) for row in rows if row}
