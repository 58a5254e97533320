"""The documentation holds: links and file names exist, the code of CONTRIBUTING.md and kernels/README.md runs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import op_cases
import pytest
from test_tour import make_notebook

from minitl import Tensor, ops, testing

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "kernels/README.md", "examples/README.md")
    ]
    + list((ROOT / "docs").glob("*.md"))
)
FENCE = re.compile(r"^(`{3,}).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)[^)]*\)")
HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)
FOLDERS = {"minitl", "kernels", "examples", "docs", "tests", "benchmarks", ".ci"}
page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def prose(path: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """What ``#...`` may name in a page, by GitHub's rule: lower case, punctuation off, spaces to hyphens."""
    titles = (re.sub(r"[^\w\- ]", "", title.lower()) for title in HEADING.findall(prose(path)))
    return {title.replace(" ", "-") for title in titles}


def named_files(text: str) -> Iterator[str]:
    """What stands in backticks and is a path of this repository: it begins with one of its folders, or is a page."""
    for name in re.findall(r"`([^`]+)`", text):
        if re.fullmatch(r"[\w.\-/]+", name) and (
            (name.split("/")[0] in FOLDERS and "/" in name) or re.fullmatch(r"[A-Z]+\.md|pyproject\.toml", name)
        ):
            yield name


@page
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):  # https:, mailto:
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name}: the link {link} leads nowhere"
        assert ROOT in path.parents, f"{page.name}: the link {link} leaves the repository"
        assert not anchor or anchor in anchors(path), f"{page.name}: {link}: there is no heading {anchor}"


@page
def test_named_files_exist(page: Path) -> None:
    for name in named_files(prose(page)):
        assert (ROOT / name).exists() or (page.parent / name).exists(), f"{page.name} names {name}, which is not there"


def test_the_checks_find_something() -> None:
    """A pattern that matches nothing would let everything pass."""
    tour = prose(ROOT / "docs" / "tour.md")
    assert "../minitl/autograd.py" in LINK.findall(tour)
    assert "minitl/autograd.py" in set(named_files(tour))
    assert LINK.findall("[a [b] c](d.md) ![picture](e.svg 'title')") == ["d.md", "e.svg"]
    assert list(named_files("`minitl/x.py` `minitl train` `minitl/<name>.py` `x/y.py` `NO.md`")) == [
        "minitl/x.py",
        "NO.md",
    ]
    assert "dependencies" in anchors(ROOT / "docs" / "design.md")


def test_every_dependency_has_a_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    packages = [*project["dependencies"], *(package for extra in extras.values() for package in extra)]
    wanted = {re.split(r"[^\w-]", package)[0] for package in packages} | set(extras)
    section = (
        (ROOT / "docs" / "design.md").read_text(encoding="utf-8").partition("## Dependencies")[2].partition("\n## ")[0]
    )
    assert set(re.findall(r"`([^`]+)`", section)) == wanted


def run_page(name: str) -> None:
    parts = make_notebook.parse((ROOT / name).read_text(encoding="utf-8"))
    assert any(part.output for part in parts)
    for written, printed in zip(parts, make_notebook.run(parts, name), strict=True):
        assert printed.output == written.output, f"{name}, the block at line {written.line} prints something else"


@pytest.mark.parametrize("name", ["kernels/README.md", "docs/testing.md"])
def test_the_code_of_the_page_runs(name: str) -> None:
    run_page(name)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example op stays out of the registry that other tests walk through."""
    assert "softplus" not in ops.OPS, "softplus is an op now; CONTRIBUTING.md needs another example"
    kept = dict(ops.OPS)
    monkeypatch.setattr("minitl.ops.registry.OPS", kept)


@pytest.mark.usefixtures("registry")
def test_the_code_of_contributing_runs() -> None:
    run_page("CONTRIBUTING.md")
    assert "softplus" not in ops.OPS


@pytest.mark.usefixtures("registry")
def test_the_test_entry_of_contributing_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    entry = re.search(r"^Variant\(.*\),$", text, re.MULTILINE)
    rule = next(part for part in make_notebook.parse(text) if part.is_code)
    assert entry is not None
    namespace: dict[str, Any] = {"__name__": "softplus"}
    exec(compile(rule.text, "CONTRIBUTING.md", "exec", dont_inherit=True), namespace)
    monkeypatch.setattr(ops, "softplus", namespace["softplus"], raising=False)
    variant = eval(entry[0].removesuffix(","), vars(op_cases))
    for shape in op_cases.SHAPES:
        case = variant.build(shape, np.random.default_rng(0))
        value = case.call(*(Tensor(array) for array in case.arrays)).numpy()
        # two roundings of a number of size 1 each way
        np.testing.assert_allclose(value, case.gold(*case.arrays), rtol=1e-15, atol=1e-15)
        testing.check_gradients(case.call, *case.arrays)
