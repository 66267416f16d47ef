"""The lesson: stops that open the real views in a chosen state, each with a few sentences; and the words that it explains."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


@cache
def lesson(lang: str) -> list[dict[str, str]]:
    """The stops in their order: ``link`` (the state that a stop opens, as in a link), ``title``, ``text`` and ``try``."""
    stops = json.loads((FOLDER / "lesson.json").read_text(encoding="utf-8"))
    return [{"link": stop["link"], **stop[lang]} for stop in stops]


@cache
def glossary(lang: str) -> list[dict[str, str | list[str]]]:
    """The explained words: ``id``, ``names`` (how texts call them) and ``text``."""
    terms = json.loads((FOLDER / "glossary.json").read_text(encoding="utf-8"))
    return [{"id": term["id"], **term[lang]} for term in terms]
