"""The lesson: stops that open the real views in a chosen state, each with a few sentences."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

PATH = Path(__file__).resolve().parent / "lesson.json"


@cache
def lesson(lang: str) -> list[dict[str, str]]:
    """The stops in their order: ``link`` (the state that a stop opens, as in a link), ``title``, ``text`` and ``try``."""
    stops = json.loads(PATH.read_text(encoding="utf-8"))
    return [{"link": stop["link"], **stop[lang]} for stop in stops]
