"""Small SVG pictures for model cards: what the scores mean, how a training went. Strings in, strings out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
"""Colours that a colour-blind person can tell apart."""
SIDE, ROOM, TOP, FOOT = 320, 52, 30, 48


@dataclass(frozen=True)
class Line:
    """One line: points as (x, y), a colour, a name for the legend; with ``marks`` a disc at every point."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    marks: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes from (0, 0) to (right, top), and what is drawn in it.

    notes: (x, y, words) beside points; diagonal: a dashed line where both axes are equal.
    """

    title: str
    x: str
    y: str
    right: float
    top: float
    lines: Sequence[Line]
    notes: Sequence[tuple[float, float, str]] = ()
    diagonal: bool = False


def svg(panels: Sequence[Panel], label: str) -> str:
    """Panels side by side on white."""
    width, height = len(panels) * (SIDE + ROOM + 24), TOP + SIDE + FOOT
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="{label}">'
    )
    parts = [head, '<rect width="100%" height="100%" fill="#ffffff"/>']
    for place, panel in enumerate(panels):
        parts += [f'<g transform="translate({place * (SIDE + ROOM + 24) + ROOM} {TOP})">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel) -> list[str]:
    def at(x: float, y: float) -> tuple[float, float]:
        return SIDE * x / panel.right, SIDE * (1 - y / panel.top)

    parts = [f'<rect width="{SIDE}" height="{SIDE}" fill="#f4f6f9"/>']
    if panel.title:
        parts.append(f'<text x="{SIDE / 2:.0f}" y="-10" text-anchor="middle" font-weight="bold">{panel.title}</text>')
    for tick in ticks(panel.right):
        parts.append(f'<text x="{at(tick, 0)[0]:.1f}" y="{SIDE + 18}" text-anchor="middle">{tick:g}</text>')
    for tick in ticks(panel.top):
        parts.append(f'<text x="-8" y="{at(0, tick)[1] + 4:.1f}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<path d="M0 {at(0, tick)[1]:.1f}H{SIDE}" stroke="#dde2ea"/>')
    parts.append(f'<text x="{SIDE / 2:.0f}" y="{SIDE + 38}" text-anchor="middle">{panel.x}</text>')
    parts.append(f'<text transform="translate(-38 {SIDE / 2:.0f}) rotate(-90)" text-anchor="middle">{panel.y}</text>')
    if panel.diagonal:
        parts.append(f'<path d="M0 {SIDE}L{SIDE} 0" stroke="#8a93a3" stroke-dasharray="5 4"/>')
    for place, line in enumerate(panel.lines):
        points = [at(*point) for point in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"/>')
        if line.marks:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{line.colour}"/>' for x, y in points]
        if line.name:
            parts.append(f'<text x="10" y="{18 + 16 * place}" fill="{line.colour}" font-weight="bold">{line.name}</text>')
    for x, y, words in panel.notes:
        left, up = at(x, y)
        parts.append(f'<text x="{left:.1f}" y="{up - 9:.1f}" text-anchor="middle" fill="#3a4252">{words}</text>')
    return parts


def ticks(top: float, most: int = 6) -> list[float]:
    """Round numbers from 0 to ``top``, at most ``most`` of them beyond 0."""
    raw = top / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return [round(step * number, 10) for number in range(int(top / step + 1e-9) + 1)]


def curve_svg(log: Sequence[dict], words: str = "training") -> str:
    """How a training went, out of its log.jsonl's lines: the loss, and average precision on val, against hours of training."""
    losses = [(line["seconds"] / 3600, line["loss"]) for line in log if "loss" in line]
    values = [line for line in log if "val" in line]
    hours = max([line["seconds"] / 3600 for line in log if "seconds" in line], default=0.0) or 1.0
    kinds = {"AP50 of person": (ORANGE, lambda line: line.get("person_ap50")), "AP50": (BLUE, lambda line: line["val"]["AP50"]),
             "AP": (GREEN, lambda line: line["val"]["AP"])}  # fmt: skip
    precision = []
    for name, (colour, figure) in kinds.items():
        points = [(line["seconds"] / 3600, 100 * figure(line)) for line in values if figure(line) is not None]
        precision += [Line(name, points, colour, marks=True)] if points else []
    highest = max([y for line in precision for _, y in line.points], default=1.0)
    top = max([loss for _, loss in losses], default=1.0)
    return svg(
        [
            Panel("loss", "hours", "sum of all losses", hours, 1.05 * top, [Line("", losses, BLUE)]),
            Panel("on val", "hours", "per cent", hours, max(1.1 * highest, 1.0), precision),
        ],
        f"Loss and average precision of a {words} against hours",
    )
