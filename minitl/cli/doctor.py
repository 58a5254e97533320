"""``minitl doctor``: what is on this machine, and does it work."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator

import click

from minitl.cli.findings import Finding, graphics, software

MARKS = {"ok": ("ok", "green"), "absent": ("--", "yellow"), "broken": ("!!", "red")}
INDENTED = 25  # where what was found begins


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option("--quick", is_flag=True, help="Only look: compile nothing, compute nothing.")
def doctor(as_json: bool, quick: bool) -> None:
    """Say what is on this machine and whether it works: processor, GPU, compilers, kernels; then a test of ten seconds
    and a small figure of speed.

    What is not installed is no fault; the line says how to get it. Exit code 1: something that is there is broken.

    \b
    Examples:
      minitl doctor
      minitl doctor --quick
      minitl doctor --json > machine.json
    """
    report: dict[str, list[Finding]] = {}
    for title, findings in sections(quick, _progress):
        if not as_json:
            click.secho(title, bold=True)
        report[title] = []
        for finding in findings:
            report[title].append(finding)
            if not as_json:
                _progress("")
                show(finding)
    _progress("")
    broken = [finding for findings in report.values() for finding in findings if finding.state == "broken"]
    if as_json:
        parts = {title: [vars(finding) for finding in findings] for title, findings in report.items()}
        click.echo(json.dumps(parts, indent=2))
    elif broken:
        names = ", ".join(finding.name for finding in broken)
        click.secho(f"\nBroken: {names}.", fg="red")
    elif not quick:
        click.echo("\nWhat is here works.")
    if broken:
        click.get_current_context().exit(1)


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[tuple[str, Iterator[Finding]]]:
    """Yield the report's sections: a title, and what makes its lines, one after the other."""
    yield "Here is", software()
    yield "For CUDA kernels", graphics()
    if quick:
        return
    from minitl.cli import self_test  # here: with --quick the model and what it needs are not loaded

    yield "Kernels compile", self_test.compiled(progress)
    yield "Devices agree", self_test.alike(progress)
    yield "Speed", self_test.speed(progress)


def show(finding: Finding) -> None:
    """Print one line, and further ones of a long text below it."""
    mark, colour = MARKS[finding.state]
    text = finding.text.replace("\n", "\n" + " " * INDENTED)
    click.echo(f"  {click.style(mark, fg=colour)} {finding.name:<{INDENTED - 6}} {text}")


def _progress(what: str) -> None:
    """Say what goes on, in a line that disappears; nothing where nobody watches."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{what + ' ...' if what else ''}", err=True, nl=False)
