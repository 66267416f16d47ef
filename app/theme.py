"""Every colour, mark and opacity of the page and its figures, by what it is for; CSS and JavaScript get theirs from here."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

# ---- scales and classes ----


@dataclass(frozen=True)
class Scale:
    """How a scale looks: its colour, and a second mark beside it: Plotly's name, a path in a box of 14 x 14, a letter."""

    colour: str
    symbol: str
    path: str
    glyph: str


SCALES = (
    Scale("#d55e00", "hexagon", "M4 1.5h6L13 7l-3 5.5H4L1 7z", "⬢"),
    Scale("#f0e442", "square", "M2 2h10v10H2z", "■"),
    Scale("#56b4e9", "diamond", "M7 .5 13.5 7 7 13.5.5 7z", "◆"),
    Scale("#cc79a7", "circle", "M7 1.5a5.5 5.5 0 1 1 0 11 5.5 5.5 0 1 1 0-11z", "●"),
    Scale("#009e73", "triangle-up", "M7 1.5 13 12.5H1z", "▲"),
    Scale("#0072b2", "star", "M7 .8 8.9 5l4.6.5L10 8.6l1 4.6-4-2.4-4 2.4 1-4.6L.5 5.5 5.1 5z", "★"),
)
"""S1, S2, …: from Okabe and Ito's palette, told apart with any kind of colour vision."""
_GOLDEN_ANGLE = 0.61803398875


def _scale(name: str) -> Scale:
    return SCALES[(int(name[1:]) - 1) % len(SCALES)]


def scale_colour(scale: str) -> str:
    """Colour of "S1", "S2", …"""
    return _scale(scale).colour


def scale_symbol(scale: str) -> str:
    """Plotly's name of the mark for "S1", "S2", …"""
    return _scale(scale).symbol


def scale_key(scale: str) -> str:
    """The scale's mark in its colour and its name, for a figure's text."""
    return f'<span style="color:{scale_colour(scale)}">{_scale(scale).glyph}</span> {scale}'


def class_colour(label: int) -> str:
    """A bright colour that stays with a class; neighbours in the list of classes get far hues."""
    hue = (0.52 + label * _GOLDEN_ANGLE) % 1.0
    lightness = (0.58, 0.66, 0.5)[label % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.85)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _channels(colour: str) -> list[int]:
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on the colour."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in _channels(colour))]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return BLACK if luminance > 0.18 else WHITE


def clear(colour: str, opacity: float) -> str:
    """A colour that what is behind it shows through."""
    red, green, blue = _channels(colour)
    return f"rgba({red},{green},{blue},{opacity})"


# ---- figures ----

FONT = "Inter, ui-sans-serif, system-ui, -apple-system, 'Segoe UI', 'Noto Sans KR', 'Noto Sans CJK KR', sans-serif"
NEUTRAL = "#8a93a3"
"""Grey that reads on light and on dark; as a font's colour the page replaces it by its own ink."""
WHITE, BLACK = "#ffffff", "#0b0e14"
NOTHING = "rgba(0,0,0,0)"

OURS, FULL = "#0072b2", "#d55e00"
"""This model's encoder, and the full one it is compared with."""
CHANGED = "#d55e00"
"""What one side has alone, or what is so only after something was taken away."""
TIME = "#7f8fa6"
BEST = "#ff3b30"
"""The frame around the best match."""
CHOSEN = "#e69f00"
"""The frame around the cell of a table that is shown."""
FOLLOWED = ("#e69f00", "#2fbf8f", "#5b9dff", "#ff8fc7")
"""Queries that are followed, apart from each other."""
CUT = "#9aa3b2"
"""A token that became no query."""
STUDY_MARKS = {"AP": (OURS, "circle"), "AP_small": (FULL, "diamond")}

RIM, RIM_OF_SMALL = "rgba(6,9,15,.85)", "rgba(6,9,15,.6)"
"""Around marks on a photo, and in a chart."""
HALO, HALO_OF_SKIN = "rgba(6,9,15,.8)", "rgba(6,9,15,.75)"
"""Under lines on a photo, so that they read on any."""
GROUND = "rgba(8,11,18,.78)"
"""Behind words on a photo."""
WAY = "rgba(255,255,255,.6)"
FRAME, DIVIDER = "rgba(138,147,163,.7)", "rgba(138,147,163,.7)"
READ, READ_EDGE = "rgba(138,147,163,.10)", "rgba(138,147,163,.55)"
"""A scale that a layer reads and does not update."""
LIT, LIT_ROW, GRID = "rgba(127,143,166,.18)", "rgba(138,147,163,.2)", "rgba(127,143,166,.25)"
"""The band behind the stage, or the row, that is shown; lines of a chart's grid."""

HEAT = [
    [0.0, "rgba(0,32,76,0)"], [0.04, "rgba(0,50,112,.45)"], [0.2, "rgba(65,77,107,.8)"], [0.45, "rgba(124,123,120,.9)"],
    [0.7, "rgba(188,174,108,.95)"], [1.0, "rgb(255,234,70)"],
]  # fmt: skip
"""Cividis, clear at its lower end."""
LIGHT_HALF = [[0.0, "#7d7c78"], [0.33, "#a69d75"], [0.67, "#d3c164"], [1.0, "#fee838"]]
"""Of Cividis, for cells with numbers."""
NUMBERS = "#12161f"
"""Can be read on every one of these cells."""


def veiled(opacity: float) -> str:
    """What is laid over a photo, so that marks stand out."""
    return f"rgba(8,11,18,{opacity})"


def thin(opacity: float) -> str:
    """White lines that do not hide a photo."""
    return f"rgba(255,255,255,{opacity:g})"


# ---- the page ----

LIGHT = {
    "bg": "#f3f5f8", "panel": "#ffffff", "raised": "#f6f8fb", "ink": "#161b26", "dim": "#5a6578", "line": "#dde3ec",
    "accent": "#2463eb", "accent-ink": "#ffffff", "accent-soft": "#e5edff", "good": "#0b7a4b", "good-soft": "#e2f6ec",
    "warn-soft": "#fff4d6", "warn-line": "#d9a400", "bad": "#b42318", "bad-soft": "#fdeceb", "void": "#e6eaf1",
    "shadow": "0 1px 2px rgb(20 30 50 / 6%), 0 6px 24px rgb(20 30 50 / 6%)",
}  # fmt: skip
DARK = {
    "bg": "#0b0e14", "panel": "#131822", "raised": "#1a2130", "ink": "#e9edf5", "dim": "#9aa6ba", "line": "#262f40",
    "accent": "#7aa5ff", "accent-ink": "#0b0e14", "accent-soft": "#1c2b4d", "good": "#5fd6a0", "good-soft": "#10301f",
    "warn-soft": "#33290b", "warn-line": "#a98100", "bad": "#ff9a92", "bad-soft": "#3a1614", "void": "#080a0f",
    "shadow": "0 1px 2px rgb(0 0 0 / 40%), 0 8px 30px rgb(0 0 0 / 25%)",
}  # fmt: skip
_BOTH = {
    "white": WHITE, "black": "#000", "logo": "#0f1420", "backdrop": "rgb(5 8 14 / 60%)", "rim": "rgb(0 0 0 / 55%)",
    "edge": "rgb(0 0 0 / 25%)", "off": "rgb(127 127 127 / 45%)", "halo": "rgb(8 11 18 / 80%)",
    **{f"s{number}": scale.colour for number, scale in enumerate(SCALES, start=1)},
}  # fmt: skip


def css() -> str:
    """The page's colours as variables; ``body.dark``, Gradio's own switch, changes them."""
    blocks = {".ld": LIGHT | _BOTH, "body.dark .ld": DARK}
    return "\n".join(
        f"{where} {{ {' '.join(f'--{name}: {value};' for name, value in names.items())} }}" for where, names in blocks.items()
    )
