"""Curves of a training as an SVG picture: any browser shows it, and no plotting library is needed."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, PANEL_HEIGHT = 760, 210
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 30, 34  # margins of a panel
MOST_POINTS = 2000  # of a curve; more are averaged, since a picture has no more columns
COLOURS = ("#2563eb", "#dc2626", "#16a34a", "#9333ea")


@dataclass(frozen=True)
class Curve:
    """Points of one line; those whose height is not finite are left out.

    Attributes:
        name: for the legend.
        steps, values: equally many.
        markers: whether each point gets a dot.
    """

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    markers: bool = False


@dataclass(frozen=True)
class Panel:
    """A coordinate system with some curves; ``logarithmic`` is about the horizontal axis."""

    title: str
    curves: Sequence[Curve]
    logarithmic: bool = False


def draw(panels: Sequence[Panel], title: str = "") -> str:
    """Return an SVG document with panels one below the other.

    Args:
        panels: those without a finite point are drawn empty.
        title: above all.
    """
    height = len(panels) * PANEL_HEIGHT + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="600">{html.escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate(0 {30 + number * PANEL_HEIGHT})">')
        parts += _panel(panel)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel) -> list[str]:
    points = [_finite(curve) for curve in panel.curves]
    every = [point for curve in points for point in curve]
    lines = [f'<text x="{LEFT}" y="{TOP - 10}" font-weight="600">{html.escape(panel.title)}</text>']
    right, bottom = WIDTH - RIGHT, PANEL_HEIGHT - BOTTOM
    lines.append(f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#888"/>')
    if not every:
        return lines
    place = math.log10 if panel.logarithmic else float
    low_x, high_x = _range([place(x) for x, _ in every])
    low_y, high_y = _range([y for _, y in every])

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (place(x) - low_x) / (high_x - low_x) * (right - LEFT)
        return across, bottom - (y - low_y) / (high_y - low_y) * (bottom - TOP)

    for tick in _ticks(low_y, high_y):
        y = at(every[0][0], tick)[1]
        lines.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#e5e5e5"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{tick:g}</text>')
    for tick in _ticks(low_x, high_x):
        x = LEFT + (tick - low_x) / (high_x - low_x) * (right - LEFT)
        label = f"{10**tick:.0e}" if panel.logarithmic else f"{tick:g}"
        lines.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#555">{label}</text>')
    for number, (curve, known) in enumerate(zip(panel.curves, points, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        placed = [at(x, y) for x, y in known]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
        if placed:
            lines.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if curve.markers:
            lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        name = html.escape(curve.name)
        lines.append(f'<text x="{right - 110 * number}" y="{TOP - 10}" text-anchor="end" fill="{colour}">{name}</text>')
    return lines


def _finite(curve: Curve) -> list[tuple[float, float]]:
    """Return the points to draw, means of neighbours where there are too many."""
    points = [(x, y) for x, y in zip(curve.steps, curve.values, strict=True) if math.isfinite(y)]
    size = -(-len(points) // MOST_POINTS) or 1
    groups = [points[begin : begin + size] for begin in range(0, len(points), size)]
    return [(group[-1][0], math.fsum(y for _, y in group) / len(group)) for group in groups]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        return low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    return low, high


def _ticks(low: float, high: float) -> list[float]:
    """Return three to seven round numbers in a range."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]
