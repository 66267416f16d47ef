"""Colours and marks: one per scale, one per class. The page's own colours are in stage/stage.css."""

from __future__ import annotations

import colorsys

SCALE_COLOURS = ("#d55e00", "#f0e442", "#56b4e9", "#cc79a7", "#009e73", "#0072b2")
"""S1, S2, …: from Okabe and Ito's palette, told apart with any kind of colour vision."""

SCALE_SYMBOLS = ("hexagon", "square", "diamond", "circle", "triangle-up", "star")
"""S1, S2, …: a second mark beside the colour."""

FONT = "Inter, ui-sans-serif, system-ui, -apple-system, 'Segoe UI', 'Noto Sans KR', 'Noto Sans CJK KR', sans-serif"
NEUTRAL = "#8a93a3"
"""Grey that reads on light and on dark; the page replaces it by the theme's own text colour."""

_GOLDEN_ANGLE = 0.61803398875


def scale_number(scale: str) -> int:
    """ "S3" -> 3."""
    return int(scale[1:])


def scale_colour(scale: str) -> str:
    """Colour of "S1", "S2", …"""
    return SCALE_COLOURS[(scale_number(scale) - 1) % len(SCALE_COLOURS)]


def scale_symbol(scale: str) -> str:
    """Plotly's name of the mark for "S1", "S2", …"""
    return SCALE_SYMBOLS[(scale_number(scale) - 1) % len(SCALE_SYMBOLS)]


def class_colour(label: int) -> str:
    """A bright colour that stays with a class; neighbours in the list of classes get far hues."""
    hue = (0.52 + label * _GOLDEN_ANGLE) % 1.0
    lightness = (0.58, 0.66, 0.5)[label % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.85)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on the colour."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#0b0e14" if luminance > 0.18 else "#ffffff"
