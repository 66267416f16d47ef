"""The page's texts, one JSON file per language; and how a language calls the classes of COCO and the model's steps."""

from __future__ import annotations

import json
import math
import re
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


@cache
def classes(lang: str) -> dict[str, str]:
    """COCO's names of classes, and how a language calls them; empty in English."""
    return json.loads((FOLDER / "classes.json").read_text(encoding="utf-8")).get(lang, {})


def say(lang: str, key: str, **values: object) -> str:
    """One text with its places filled; the key itself where there is no such text.

    Values called ``step``, ``stage`` or ``next`` are steps, ``name`` or ``wanted`` classes: they are called as the language does.
    """
    calls = {place: _CALLS[place](lang, str(value)) for place, value in values.items() if place in _CALLS}
    return texts(lang).get(key, key).format(**values | calls)


def class_name(lang: str, name: str) -> str:
    """A class as a language calls it; the name itself where it is none of COCO's."""
    return classes(lang).get(name, name)


def step_name(lang: str, name: str) -> str:
    """A step ("B1 high", "decoder 3", "backbone") as a language calls it; the name itself where it is no step's."""
    found = STEP.fullmatch(name)
    if found is None:
        return name
    block, kind, number = found.groups()
    return f"{block or ''}{texts(lang)[f'step.{kind}']}{number or ''}"


STEP = re.compile(r"(B\d+ )?(high|low|all|backbone|selection|token|encoder|decoder)( \d+)?")
_CALLS = {"step": step_name, "stage": step_name, "next": step_name, "name": class_name, "wanted": class_name}


def number(value: float, form: str = ".2f") -> str:
    """A number in Python's format as the page writes it: with a minus, not a hyphen; a dash where it is not finite."""
    return format(value, form).replace("-", "−") if math.isfinite(value) else "–"


def short(value: float) -> str:
    """A number of any size in few digits: 0.39, 12.3, 1,234."""
    return number(value, ".2f" if abs(value) < 10 else ".1f" if abs(value) < 100 else ",.0f")


def power(value: float) -> str:
    """A small number as the page writes it: 1.2 × 10⁻⁷."""
    if value == 0:
        return "0"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits} × 10{str(int(exponent)).translate(_RAISED)}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
