"""What several views let a visitor set, as the page reads it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from app.i18n import say
from app.run.state import ViewState


def choice(key: str, label: str, value: str, options: Sequence[Sequence[str]]) -> dict[str, Any]:
    """One of several; options: [value, what it is called] of each."""
    return {"key": key, "kind": "choice", "label": label, "value": value, "options": options}


def head(lang: str, heads: int, chosen: int | None, every: bool = True) -> dict[str, Any]:
    """A head, from 1, or (`every`) all of them."""
    options = [["", say(lang, "heads.all")]] * every + [[str(number + 1), str(number + 1)] for number in range(heads)]
    return choice("head", say(lang, "heads"), str(chosen or ""), options)


def scale(label: str, chosen: str, scales: Iterable[str]) -> dict[str, Any]:
    """One scale."""
    return choice("scale", label, chosen, [[name, name] for name in sorted(scales)])


def one_scale(state: ViewState, label: str, scales: Iterable[str]) -> dict[str, Any]:
    """All scales, or one alone: the others are hidden."""
    names = sorted(scales)
    alone = [[",".join(each for each in names if each != name), name] for name in names]
    return choice("hide", label, ",".join(state.hidden), [["", say(state.lang, "heads.all")], *alone])
