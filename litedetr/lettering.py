"""Names in any script, drawn into a picture by Pillow, with the fonts that this machine has.

Pillow's own font has Latin, Greek and Cyrillic letters. For the others, fonts are looked for where systems keep them. A letter
that no font has is left out; a name of which nothing is left is written as the fallback that the caller gives.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FOLDERS = (
    "/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts",
    "/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts", "C:/Windows/Fonts",
)  # fmt: skip
WIDE = (
    "notosanscjk-regular", "notosanskr-regular", "notosans-regular", "droidsansfallback", "nanumgothic", "wqy-zenhei",
    "wqy-microhei", "applesdgothicneo", "hiragino", "pingfang", "arialunicode", "malgun", "msyh", "yugoth", "segoeui",
    "dejavusans", "notoemoji", "seguisym", "symbola",
)  # fmt: skip
"""How the names of fonts with many letters begin, best first."""
NOWHERE = "\U0010ffff"
"""A sign that no font has: it looks as all missing ones do."""


@cache
def font_files() -> tuple[Path, ...]:
    """The known fonts on this machine, best first."""
    found: dict[str, list[Path]] = {}
    for folder in FOLDERS:
        for place, _, names in os.walk(os.path.expanduser(folder)):
            for name in names:
                if name.lower().endswith((".ttf", ".ttc", ".otf")):
                    plain = name.lower().replace(" ", "")
                    for start in WIDE:
                        if plain.startswith(start):
                            found.setdefault(start, []).append(Path(place, name))
    return tuple(min(found[start], key=lambda path: len(path.name)) for start in WIDE if start in found)  # bold ones are longer


@cache
def fonts(size: int) -> tuple[ImageFont.FreeTypeFont, ...]:
    """Pillow's own, then those of this machine that can be opened."""
    loaded = [ImageFont.load_default(size=size)]
    for file in font_files():
        try:
            loaded.append(ImageFont.truetype(str(file), size=size))
        except OSError:
            continue
    return tuple(loaded)


@cache
def _missing(font: ImageFont.FreeTypeFont) -> bytes:
    return bytes(font.getmask(NOWHERE))


@cache
def font_of(letter: str, size: int) -> ImageFont.FreeTypeFont | None:
    """The first font that has the letter."""
    return next((font for font in fonts(size) if letter.isspace() or bytes(font.getmask(letter)) != _missing(font)), None)


def runs(text: str, size: int) -> list[tuple[str, ImageFont.FreeTypeFont]]:
    """The text in pieces, each with a font that has all its letters; letters that no font has are left out."""
    pieces: list[tuple[str, ImageFont.FreeTypeFont]] = []
    for letter in text:
        font = font_of(letter, size)
        if font is None or not letter.isprintable():
            continue
        if pieces and (pieces[-1][1] is font or letter.isspace()):
            pieces[-1] = (pieces[-1][0] + letter, pieces[-1][1])
        else:
            pieces.append((letter, font))
    return pieces


class Lettering:
    """A line of text, measured and ready to be drawn. ``size`` in pixels; ``width`` and ``height`` are what it takes."""

    def __init__(self, text: str, size: int):
        self.pieces = runs(text, size)
        self.width = sum(font.getlength(piece) for piece, font in self.pieces)
        self.height = round(1.25 * size)
        self.baseline = size

    def draw(self, onto: Image.Image, x: float, y: float, colour: str) -> None:
        """With its upper left corner at x, y."""
        drawing = ImageDraw.Draw(onto)
        for piece, font in self.pieces:
            drawing.text((x, y + self.baseline), piece, fill=colour, font=font, anchor="ls")
            x += font.getlength(piece)


def written(name: str, fallback: str, size: int) -> str:
    """The name without what cannot be drawn; the fallback where nothing is left of it."""
    return "".join(piece for piece, _ in runs(name, size)).strip() or fallback
