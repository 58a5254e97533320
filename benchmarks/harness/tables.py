"""Results as a table: CSV for programs, Markdown for people."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: its name in the CSV file.
        title: its name in the Markdown table; "" leaves it out there.
        form: how numbers are written in the Markdown table, a format specification; ``"%"`` and ``"x"`` are known.
    """

    key: str
    title: str
    form: str = ""


@dataclass
class Table:
    """The results of one suite.

    Attributes:
        name: of the files.
        title: one line.
        columns: in their order.
        rows: for each row its values by key; what is missing is empty. In Markdown a ``note`` is a number, and its text
            stands under the table.
        notes: sentences under the table.
    """

    name: str
    title: str
    columns: list[Column]
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def save(self, folder: Path, head: Mapping[str, str]) -> None:
        """Write ``NAME.csv`` and ``NAME.md``; the head, what was measured on what, stands in both."""
        folder.mkdir(parents=True, exist_ok=True)
        keys = [column.key for column in self.columns]
        with (folder / f"{self.name}.csv").open("w", newline="") as stream:
            stream.writelines(f"# {key}: {value}\n" for key, value in head.items())
            writer = csv.DictWriter(stream, keys, restval="", extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: _plain(value) for key, value in row.items()} for row in self.rows)
        (folder / f"{self.name}.md").write_text(self.markdown(head))

    def markdown(self, head: Mapping[str, str]) -> str:
        """The table and its head as Markdown."""
        shown = [column for column in self.columns if column.title]
        numeric = [bool(column.form) for column in shown]
        remarks = list(dict.fromkeys(row["note"] for row in self.rows if row.get("note")))
        rows = [{**row, "note": f"({remarks.index(row['note']) + 1})" if row.get("note") else ""} for row in self.rows]
        cells = [[_formatted(row.get(column.key), column.form) for column in shown] for row in rows]
        titles = [column.title for column in shown]
        widths = [max(len(text) for text in texts) for texts in zip(titles, *cells, strict=True)]
        lines = [f"# {self.title}", ""]
        lines += [f"- {key}: {value}" for key, value in head.items()]
        lines += ["", _line(titles, widths, numeric)]
        rule = [
            "-" * (width + 1) + ":" if right else "-" * (width + 2)
            for width, right in zip(widths, numeric, strict=True)
        ]
        lines += [f"|{'|'.join(rule)}|"]
        lines += [_line(row, widths, numeric) for row in cells]
        lines += ["", *(f"({number}) {remark}\n" for number, remark in enumerate(remarks, 1))]
        lines += [f"{note}\n" for note in self.notes]
        return "\n".join(lines).rstrip() + "\n"


def _line(texts: list[str], widths: list[int], numeric: list[bool]) -> str:
    aligned = [
        text.rjust(width) if right else text.ljust(width)
        for text, width, right in zip(texts, widths, numeric, strict=True)
    ]
    return f"| {' | '.join(aligned)} |"


def _plain(value: Any) -> Any:
    """Five figures are more than any of these numbers deserves."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _formatted(value: Any, form: str) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, str) or not form:
        return str(value).replace("|", "/")
    if form == "%":
        return f"{value:.0%}"
    if form == "x":
        return f"{value:.2f}x"
    return format(value, form)
