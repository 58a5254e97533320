"""Make docs/tour.ipynb from docs/tour.md: python docs/make_notebook.py

A ```python block becomes a cell, and the ```text block right after it what the cell printed. The text in between
becomes Markdown cells. Nothing is run: tests/docs/test_tour.py runs the page and compares what it prints with the text
blocks, so the notebook's stored outputs are true as well. After changing code on the page, ``--update`` runs it and
writes the text blocks anew; look at what changed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
PAGE, NOTEBOOK = HERE / "tour.md", HERE / "tour.ipynb"

INSTALL = """\
import importlib.util

REPOSITORY = ""  # @param {type:"string"}
if importlib.util.find_spec("minitl") is None:  # on Colab, for example
    assert REPOSITORY, "enter above the address from which you would clone minitl, then run this cell again"
    !pip install -q git+{REPOSITORY}"""

_BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\s*^```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)


class Part(NamedTuple):
    """A piece of the page: text, or code with what it prints.

    Attributes:
        text: Markdown, or Python without the fences.
        line: line of the page on which it starts, from 1.
        is_code: which of both.
        output: what the code prints, "" for nothing.
    """

    text: str
    line: int
    is_code: bool = False
    output: str = ""


def parse(page: str) -> list[Part]:
    """Cut a Markdown page into its text and its ```python blocks, in order."""
    parts = []
    position = 0
    for match in _BLOCK.finditer(page):
        parts.append(Part(page[position : match.start()], page.count("\n", 0, position) + 1))
        line = page.count("\n", 0, match.start("code")) + 1
        parts.append(Part(match["code"], line, is_code=True, output=match["output"] or ""))
        position = match.end()
    parts.append(Part(page[position:], page.count("\n", 0, position) + 1))
    return [part for part in parts if part.text.strip()]


def run(parts: list[Part], name: str) -> list[Part]:
    """Run the code in order in one namespace; return the parts with what they really print.

    Args:
        parts: of one page.
        name: of the page, for tracebacks, which then show its line numbers.
    """
    namespace: dict[str, Any] = {"__name__": "__page__"}
    done = []
    for part in parts:
        printed = io.StringIO()
        if part.is_code:
            padded = "\n" * (part.line - 1) + part.text
            with contextlib.redirect_stdout(printed):
                exec(compile(padded, name, "exec", dont_inherit=True), namespace)
        lines = [line.rstrip() for line in printed.getvalue().splitlines()]
        done.append(part._replace(output="".join(line + "\n" for line in lines)))
    return done


def join(parts: list[Part]) -> str:
    """Put the page together again."""
    page = ""
    for part in parts:
        if part.is_code:
            page += f"```python\n{part.text}```\n"
            page += f"\n```text\n{part.output}```\n" if part.output else ""
        else:
            page += part.text
    return page


def notebook(parts: list[Part]) -> dict[str, Any]:
    """Return the notebook as nbformat 4.5 has it."""
    cells = [_code_cell(INSTALL, "", number=0)]
    for number, part in enumerate(parts, start=1):
        if part.is_code:
            cells.append(_code_cell(part.text, part.output, number))
        else:
            cells.append({**_cell("markdown", number), "source": _lines(part.text)})
    language = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": language}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def notebook_text(page: str) -> str:
    """Return the contents of the notebook file for the contents of a page."""
    return json.dumps(notebook(parse(page)), indent=1, ensure_ascii=False) + "\n"


def _cell(kind: str, number: int) -> dict[str, Any]:
    return {"cell_type": kind, "id": f"part-{number}", "metadata": {}}


def _code_cell(code: str, output: str, number: int) -> dict[str, Any]:
    outputs = [{"name": "stdout", "output_type": "stream", "text": output.splitlines(keepends=True)}] if output else []
    return {**_cell("code", number), "execution_count": None, "outputs": outputs, "source": _lines(code)}


def _lines(text: str) -> list[str]:
    return text.strip("\n").splitlines(keepends=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--update", action="store_true", help="run the page and write its outputs anew, first")
    page = PAGE.read_text(encoding="utf-8")
    if parser.parse_args().update:
        page = join(run(parse(page), str(PAGE)))
        PAGE.write_text(page, encoding="utf-8", newline="\n")
    NOTEBOOK.write_text(notebook_text(page), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
