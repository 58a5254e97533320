"""The list of planted faults fits the code and its page; the runner tells what was found from what was not.

The faults themselves are planted by ``.ci/run``, which takes minutes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import planted
import pytest
import run
from planted import Mutant

MUTANTS = planted.load()
PAGE = (planted.ROOT / planted.TABLE).read_text(encoding="utf-8")


def test_every_mutant_fits_the_code() -> None:
    assert len(MUTANTS) >= 40
    assert planted.problems(MUTANTS, planted.ROOT) == []


def test_the_page_lists_exactly_these_mutants() -> None:
    wanted = {m.name: (str(number), m.fault, m.file) for number, m in enumerate(MUTANTS, start=1)}
    assert {name: row[:3] for name, row in planted.listed(PAGE).items()} == wanted


def test_the_tests_on_the_page_exist() -> None:
    """A test that was renamed is missed here, and not only when the faults are planted again."""
    for name, row in planted.listed(PAGE).items():
        assert row[3] != "no test", f"{name}: no test finds it"
        file, _, function = row[3].partition("::")
        assert f"def {function}(" in (planted.ROOT / file).read_text(encoding="utf-8"), (name, row[3])


# -- a project of three lines ------------------------------------------------------------------------------------------

WRONG = Mutant(
    topic="Sums",
    name="three-for-two",
    file="minitl/__init__.py",
    old="2 * x",
    new="3 * x",
    tests="tests/test_double.py",
    fault="Three times.",
)
HARMLESS = replace(WRONG, name="sum-for-product", new="x + x", fault="A sum.")
BROKEN = replace(
    WRONG, name="no-such-module", old="def double", new="import nowhere\n\n\ndef double", fault="No import."
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    files = {
        "minitl/__init__.py": "def double(x):\n    return 2 * x\n",
        "kernels/__init__.py": "",
        "tests/test_double.py": "from minitl import double\n\n\ndef test_double():\n    assert double(3) == 6\n",
        "docs/mutants.md": "",
        "pyproject.toml": "[tool.pytest.ini_options]\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_in_a_real_copy(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--this-option-is-not-passed-on")
    copy = run.Copy(project, tmp_path / "copy")
    copy.check_imports()  # which also leaves bytecode of the right code behind, of the same second and size
    with copy.with_fault(WRONG):
        found = copy.run([WRONG.tests], "reference")
    assert (found.result, found.test) == ("failed", "tests/test_double.py::test_double")
    assert found.message.startswith("AssertionError: assert 9 == 6")
    with copy.with_fault(BROKEN):
        broken = copy.run([BROKEN.tests], "reference")
    assert broken.result == "broken"
    assert broken.message.startswith("CollectError")
    for root in (project, copy.folder):
        assert (root / "minitl/__init__.py").read_text(encoding="utf-8") == "def double(x):\n    return 2 * x\n"


def test_another_minitl_is_noticed(project: Path, tmp_path: Path) -> None:
    copy = run.Copy(project, tmp_path / "copy")
    copy.environment["PYTHONPATH"] = str(project)
    with pytest.raises(RuntimeError, match="to be imported, found"):
        copy.check_imports()


@pytest.mark.parametrize(
    ("exit_code", "report", "result"),
    [
        (0, {"passed": 3, "failure": None}, "passed"),
        (0, {"passed": 0, "failure": None}, "broken"),  # all were skipped
        (5, {"passed": 0, "failure": None}, "broken"),  # none was selected
        (2, {"passed": 3, "failure": None}, "broken"),  # interrupted
        (4, None, "broken"),  # conftest.py does not import
        (1, ("call", "AssertionError"), "failed"),
        (1, ("call", "ValueError"), "failed"),
        (1, ("call", "NameError"), "broken"),
        (1, ("call", "BuildError"), "broken"),
        (1, ("setup", "AssertionError"), "broken"),
        (2, ("collect", "CollectError"), "broken"),
    ],
)
def test_judged(exit_code: int, report: Any, result: str) -> None:
    if isinstance(report, tuple):
        failure = {"test": "tests/test_x.py::test_x", "when": report[0], "error": report[1], "message": "m"}
        report = {"passed": 1, "failure": failure}
    assert run.judged(exit_code, report).result == result


def plant(
    project: Path, monkeypatch: pytest.MonkeyPatch, mutants: Sequence[Mutant], *arguments: str, as_it_is: str = "passed"
) -> int:
    """Run ``main`` over these mutants; the copies' tests are played: they see whether the code is right.

    ``as_it_is`` says what they do without a fault: "passed", "failed" or "skipped".
    """

    def played(copy: run.Copy, tests: Sequence[str], kernels: str) -> run.Run:
        code = copy.path_of(WRONG.file).read_text(encoding="utf-8")
        if "import" in code:
            return run.Run("broken", "CollectError")
        if "3 * x" in code or as_it_is == "failed":
            return run.Run("failed", "AssertionError", "tests/test_double.py::test_double[1]")
        return run.Run("passed", "", count=len(tests) if as_it_is == "passed" else 0)

    monkeypatch.setattr(run.Copy, "run", played)
    monkeypatch.setattr(run.Copy, "check_imports", lambda copy: None)
    monkeypatch.setattr(planted, "load", lambda: list(mutants))
    return run.main(["--workers", "2", *arguments], root=project)


def test_all_found(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The page is written on request, and true from then on until something changes."""
    assert plant(project, monkeypatch, [WRONG]) == 1
    assert "docs/mutants.md is out of date: three-for-two" in capsys.readouterr().out
    assert plant(project, monkeypatch, [WRONG], "--update") == 0
    page = (project / planted.TABLE).read_text(encoding="utf-8")
    row = ("1", "Three times.", "minitl/__init__.py", "tests/test_double.py::test_double")
    assert planted.listed(page) == {"three-for-two": row}
    assert plant(project, monkeypatch, [WRONG]) == 0
    assert plant(project, monkeypatch, [WRONG, replace(WRONG, name="once-more")], "three-for-two") == 0
    assert plant(project, monkeypatch, [replace(WRONG, fault="Other words.")]) == 1
    (project / planted.TABLE).write_text(page + "| 2 | `gone-since`: Gone. | `a` | `b` |\n", encoding="utf-8")
    assert plant(project, monkeypatch, [WRONG]) == 1
    (project / planted.TABLE).write_text(page.replace("::test_double", "::test_other"), encoding="utf-8")
    assert plant(project, monkeypatch, [WRONG]) == 1


@pytest.mark.parametrize(("mutant", "verdict"), [(HARMLESS, "NOT FOUND"), (BROKEN, "INVALID")])
def test_one_not_found(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mutant: Mutant,
    verdict: str,
) -> None:
    for option in ("--update", mutant.name):
        assert plant(project, monkeypatch, [WRONG, mutant], option) == 1
        assert f"{verdict}: {mutant.name}" in capsys.readouterr().out
    page = (project / planted.TABLE).read_text(encoding="utf-8")
    assert planted.listed(page)[mutant.name][3] == "no test"
    assert "2 faults planted, 1 found" in page


@pytest.mark.parametrize(
    ("as_it_is", "words"),
    [("failed", "without a fault: AssertionError"), ("skipped", "without a fault: 0 tests of 1 ran")],
)
def test_tests_that_fail_anyway_find_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_it_is: str, words: str
) -> None:
    assert plant(project, monkeypatch, [WRONG], "--update", as_it_is=as_it_is) == 1
    assert words in capsys.readouterr().out
    assert (project / planted.TABLE).read_text(encoding="utf-8") == ""


def test_interrupted(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*ignored: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(planted, "problems", interrupt)
    assert plant(project, monkeypatch, [WRONG]) == 130


@pytest.mark.parametrize("arguments", [["no-such-mutant"], ["--update", "three-for-two"], ["--workers", "0"]])
def test_wrong_usage(project: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        plant(project, monkeypatch, [WRONG], *arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "One"}, "the name is not of words"),
        ({"fault": "no sentence"}, "the fault is no sentence"),
        ({"fault": "A | B."}, "the fault is no sentence"),
        ({"file": "minitl/gone.py"}, "there is no minitl/gone.py"),
        ({"tests": "tests/gone.py -k x"}, "are not there"),
        ({"tests": "-k x"}, "are not there"),
        ({"old": "x"}, "occurs 2 times"),
        ({"old": "y"}, "occurs 0 times"),
        ({"new": "2 *"}, "does not compile"),
        ({"new": "2  * x"}, "nothing but spaces"),
    ],
)
def test_a_mutant_that_does_not_fit(project: Path, change: dict[str, str], words: str) -> None:
    assert planted.problems([WRONG, HARMLESS], project) == []
    (problem,) = planted.problems([replace(WRONG, **change), HARMLESS], project)
    assert re.search(words, problem)
    assert planted.problems([WRONG, WRONG], project) == ["three-for-two: 2 mutants of this name"]


def test_a_misspelt_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('topic = "A"\n[[mutant]]\nnaem = "x"\n', encoding="utf-8")
    with pytest.raises(TypeError, match="naem"):
        planted.load(tmp_path)
