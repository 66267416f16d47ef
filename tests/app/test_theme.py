"""Colours are told apart, and live in one file."""

import re
from pathlib import Path

import pytest

from app.theme import DARK, LIGHT, SCALES, class_colour, css

APP = Path(__file__).parents[2] / "app"
FILES = [path for path in APP.rglob("*") if path.suffix in (".py", ".js", ".css", ".html") and path.name != "theme.py"]
LITERAL = re.compile(r"#(?:[0-9a-fA-F]{3,4}){1,2}\b(?![-\w])|\b(?:rgba?|hsla?)\(\s*[\d{]")


def test_colours():
    assert len({scale.colour for scale in SCALES}) == len({scale.path for scale in SCALES}) == len(SCALES)
    assert len({class_colour(label) for label in range(80)}) == 80


@pytest.mark.parametrize("text", ["#fff", "color: #0b0e14;", 'f"rgba({red},1,2,.5)"', "rgb(0 0 0 / 5%)"])
def test_a_literal_colour_is_found(text):
    assert LITERAL.search(text)


def test_no_colour_is_written_elsewhere():
    found = {path.name: LITERAL.findall(path.read_text(encoding="utf-8")) for path in FILES}
    assert len(found) > 50
    assert {name: colours for name, colours in found.items() if colours} == {}


def test_every_colour_that_the_page_uses_has_its_name():
    assert LIGHT.keys() == DARK.keys()
    named = set(re.findall(r"--([\w-]+):", css())) | {"mono", "tall", "w", "c"}
    used = {name for path in FILES for name in re.findall(r"var\(--([\w-]+)", path.read_text(encoding="utf-8"))}
    assert used - named == set()
