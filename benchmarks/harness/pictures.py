"""Pictures of the tables: speed by program, and how it scales."""

import csv
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Row = dict[str, str]

# Ours in blue, torch in warm colours, others in green; the same in every picture.
COLOURS = {
    "minitl float32": "#1f4e9c",
    "minitl bfloat16": "#6fa0e8",
    "torch as shipped": "#c9c9c9",
    "torch grouped": "#e58f3c",
    "torch grouped bfloat16": "#f4c88f",
    "torch.compile grouped": "#a8432d",
    "ONNX Runtime grouped": "#4f9d69",
}
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.dpi": 110,
    "legend.frameon": False,
}


def draw_all(folder: Path) -> list[str]:
    """Draw a picture for every table in ``folder`` that has one; return the names of the files."""
    drawings: dict[str, Callable[[list[Row]], Figure]] = {
        "training": lambda rows: _bars(rows, "Training: useful tokens per second"),
        "inference": lambda rows: _bars(rows, "Prediction: useful tokens per second"),
        "scaling": _curves,
    }
    drawn = []
    with pyplot.rc_context(STYLE):
        for name, draw in drawings.items():
            rows = [row for row in _read(folder / f"{name}.csv") if row["tokens_per_second"]]
            if not rows:
                continue
            figure = draw(rows)
            figure.savefig(folder / f"{name}.png", bbox_inches="tight")
            pyplot.close(figure)
            drawn.append(f"{name}.png")
    return drawn


def _read(path: Path) -> list[Row]:
    """The rows of a table; none if it is not there."""
    if not path.is_file():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(line for line in stream if not line.startswith("#")))


def _unique(rows: list[Row], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def _bars(rows: list[Row], title: str) -> Figure:
    """A panel for each model, a group of bars for each workload, a bar for each program."""
    models, programs = _unique(rows, "model"), [name for name in COLOURS if name in _unique(rows, "program")]
    workloads = _unique(rows, "workload")
    height = 0.9 + len(workloads) * (0.17 * len(programs) + 0.2)
    figure, panels = pyplot.subplots(1, len(models), figsize=(4.6 * len(models), height), sharey=True, squeeze=False)
    for panel, model in zip(panels[0], models, strict=True):
        _bar_panel(panel, [row for row in rows if row["model"] == model], workloads, programs)
        panel.set_title(model)
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=COLOURS[name]) for name in programs]
    figure.suptitle(title, y=1.0, fontsize=12)
    figure.legend(handles, programs, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=3)
    figure.tight_layout()
    return figure


def _bar_panel(panel: Axes, rows: list[Row], workloads: list[str], programs: list[str]) -> None:
    """Draw one model; the first workload and program are on top, and a number stands at the end of each bar."""
    step = 0.84 / len(programs)
    speeds = {(row["workload"], row["program"]): float(row["tokens_per_second"]) for row in rows}
    most = max(speeds.values())
    for group, workload in enumerate(workloads):
        present = [name for name in programs if (workload, name) in speeds]
        for place, name in enumerate(present):
            speed = speeds[workload, name]
            y = group + (place - (len(present) - 1) / 2) * step
            panel.barh(y, speed, height=step * 0.92, color=COLOURS[name])
            panel.text(speed + 0.012 * most, y, f"{speed:,.0f}", va="center", fontsize=7, color="#444444")
    panel.set_yticks(range(len(workloads)), workloads)
    panel.set_ylim(len(workloads) - 0.5, -0.5)
    panel.set_xlim(0, most * 1.12)
    panel.tick_params(axis="y", length=0)
    panel.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
    panel.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))


def _curves(rows: list[Row]) -> Figure:
    """A panel for each curve, a line for each program; speed against what is scaled."""
    axes = {
        "length": ("length of sentences (1,024 tokens a batch)", lambda row: int(row["workload"].rpartition("x")[2])),
        "batch": ("sentences of 32 tokens in a batch", lambda row: int(row["workload"].split()[1].partition("x")[0])),
        "threads": ("threads (8 sentences of 128 tokens)", lambda row: int(row["threads"])),
    }
    programs = [name for name in COLOURS if name in _unique(rows, "program")]
    figure, panels = pyplot.subplots(1, 3, figsize=(11, 3.6), squeeze=False, width_ratios=(3, 3, 2))
    for panel, (curve, (label, place)) in zip(panels[0], axes.items(), strict=True):
        for name in programs:
            points = sorted(
                (place(row), float(row["tokens_per_second"]))
                for row in rows
                if row["curve"] == curve and row["program"] == name
            )
            if points:
                panel.plot(*zip(*points, strict=True), "o-", color=COLOURS[name], ms=4)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:.0f}"))
        panel.xaxis.set_major_locator(
            matplotlib.ticker.FixedLocator(sorted({place(row) for row in rows if row["curve"] == curve}))
        )
        panel.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        panel.yaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
        panel.set_ylim(bottom=0)
        panel.set_xlabel(label)
        panel.grid(axis="y", color="#e6e6e6")
    panels[0][0].set_ylabel("useful tokens per second")
    handles = [pyplot.Line2D([], [], color=COLOURS[name], marker="o", ms=4) for name in programs]
    figure.suptitle("Training minilm: how speed scales", y=1.0, fontsize=12)
    figure.legend(handles, programs, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=len(programs))
    figure.tight_layout()
    return figure
