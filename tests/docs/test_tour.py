"""The tour: its code runs and prints what the page says, and the notebook is the page."""

from __future__ import annotations

import importlib.util
import json
import socket
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import minitl.random

ROOT = Path(__file__).resolve().parents[2]
PAGE, NOTEBOOK = ROOT / "docs" / "tour.md", ROOT / "docs" / "tour.ipynb"


def load_make_notebook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_notebook", ROOT / "docs" / "make_notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_notebook = load_make_notebook()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and temporary folders where pytest tidies up."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the tour opened a network connection")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def check_page() -> None:
    parts = make_notebook.parse(PAGE.read_text(encoding="utf-8"))
    with np.printoptions():  # the page sets its own
        done = make_notebook.run(parts, str(PAGE))
    for written, printed in zip(parts, done, strict=True):
        assert printed.output == written.output, (
            f"{PAGE.name}, the block at line {written.line} prints something else; if that is right, run "
            "docs/make_notebook.py --update"
        )


@pytest.mark.usefixtures("offline")
def test_the_page_prints_what_it_says() -> None:
    check_page()


@pytest.mark.usefixtures("offline")
def test_the_numbers_do_not_hang_on_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another CPU adds in another order. 1e-12 of each initial weight is thousands of its roundings."""
    normal = minitl.random.Generator.normal
    noise = np.random.default_rng(0)

    def shaken(self: Any, shape: tuple[int, ...], **options: Any) -> Any:
        return normal(self, shape, **options) * (1 + 1e-12 * noise.uniform(-1, 1, shape))

    monkeypatch.setattr(minitl.random.Generator, "normal", shaken)
    check_page()


def test_the_notebook_is_the_page() -> None:
    wanted = make_notebook.notebook_text(PAGE.read_text(encoding="utf-8"))
    assert NOTEBOOK.read_text(encoding="utf-8") == wanted, "run docs/make_notebook.py"


def test_the_page_survives_being_cut_and_joined() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert make_notebook.join(make_notebook.parse(page)) == page


def test_no_code_of_the_page_is_left_out() -> None:
    page = PAGE.read_text(encoding="utf-8")
    parts = make_notebook.parse(page)
    assert sum(part.is_code for part in parts) == page.count("```python") > 10
    assert sum(bool(part.output) for part in parts) == page.count("```text") > 10


def test_the_notebook_follows_nbformat_4_5() -> None:
    """What the schema of nbformat demands of the kinds of cells we use."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert set(notebook["metadata"]["kernelspec"]) == {"display_name", "language", "name"}
    identifiers = [cell["id"] for cell in notebook["cells"]]
    assert len(set(identifiers)) == len(identifiers)
    for cell in notebook["cells"]:
        code = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert set(cell) == {"cell_type", "id", "metadata", "source"} | code
        assert cell["cell_type"] in ("code", "markdown")
        assert all(line.endswith("\n") for line in cell["source"][:-1])
        for output in cell.get("outputs", ()):
            assert set(output) == {"name", "output_type", "text"}
            assert (output["name"], output["output_type"]) == ("stdout", "stream")
    assert sum(bool(cell.get("outputs")) for cell in notebook["cells"]) > 10


def test_the_first_cell_installs_only_where_minitl_is_missing() -> None:
    first = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"][0]
    code = "".join(first["source"])
    assert code == make_notebook.INSTALL
    lines = code.splitlines()
    assert lines[-1] == "    !pip install -q git+{REPOSITORY}"
    plain = "\n".join([*lines[:-1], "    raise AssertionError('would install')"])
    exec(compile(plain, "first cell", "exec"), {})  # minitl is here
    missing = plain.replace('"minitl"', '"no_such_package_as_this"')
    with pytest.raises(AssertionError, match="enter above the address"):
        exec(compile(missing, "first cell", "exec"), {})
    addressed = missing.replace('REPOSITORY = ""', 'REPOSITORY = "https://example.org/minitl"')
    with pytest.raises(AssertionError, match="would install"):
        exec(compile(addressed, "first cell", "exec"), {})
