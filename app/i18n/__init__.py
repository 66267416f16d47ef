"""The page's texts, one JSON file per language."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


@cache
def texts(lang: str) -> dict[str, str]:
    """All texts of a language by key; English stands in for what a language lacks."""
    english = json.loads((FOLDER / "en.json").read_text(encoding="utf-8"))
    path = FOLDER / f"{lang}.json"
    if lang == "en" or not path.is_file():
        return english
    return english | json.loads(path.read_text(encoding="utf-8"))


def say(lang: str, key: str, **values: object) -> str:
    """One text with its places filled; the key itself where there is no such text."""
    return texts(lang).get(key, key).format(**values)


def power(value: float) -> str:
    """A small number as the page writes it: 1.2 × 10⁻⁷."""
    if value == 0:
        return "0"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits} × 10{str(int(exponent)).translate(_RAISED)}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
