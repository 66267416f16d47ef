"""ViewState: everything a visitor selected, and its form in a link."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

VIEWS = ("detections", "points")
LANGUAGES = ("en", "ko")
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}\Z", re.ASCII)
AUTO = "auto"

_SCALE = re.compile(r"^S[1-9]$")
_NAME = re.compile(r"^[\w .+-]{1,40}$")


@dataclass(frozen=True)
class ViewState:
    """What is looked at, how. Frozen: a selection makes a new state.

    Attributes:
        view: one of `VIEWS`.
        threshold: lowest score shown; None for the model's own.
        query: index of a decoder query (an object), None where a point of the photo is selected, or nothing.
        point: x, y in [0, 1] of the photo.
        scale: which scale's token asks, "S1" …; "auto" for what fits the step.
        step: name of an encoder update or decoder layer; "auto" for what fits the selection.
        head: attention head from 1; None for all.
        hidden: scales whose points are not drawn.
        example: name of an example picture, "" for the visitor's own (which no link ever holds).
        lang: language of the texts.
        model: id of a model on the Hub, "" for the page's own.
    """

    view: str = "detections"
    threshold: float | None = None
    query: int | None = None
    point: tuple[float, float] | None = None
    scale: str = AUTO
    step: str = AUTO
    head: int | None = None
    hidden: tuple[str, ...] = ()
    example: str = ""
    lang: str = "en"
    model: str = ""

    def with_(self, **changes: Any) -> ViewState:
        """The same state with fields replaced."""
        return replace(self, **changes)

    def to_query(self) -> dict[str, str]:
        """Short text parameters; what has its default is left out."""
        default = ViewState()
        texts = {
            "view": self.view,
            "t": None if self.threshold is None else f"{self.threshold:.3g}",
            "q": None if self.query is None else str(self.query),
            "at": None if self.point is None else ",".join(f"{value:.4f}" for value in self.point),
            "scale": self.scale,
            "step": self.step,
            "head": None if self.head is None else str(self.head),
            "hide": ",".join(self.hidden) or None,
            "example": self.example or None,
            "lang": self.lang,
            "model": self.model or None,
        }
        plain = {"view": default.view, "scale": default.scale, "step": default.step, "lang": default.lang}
        return {key: text for key, text in texts.items() if text is not None and text != plain.get(key)}

    def to_url(self) -> str:
        """`to_query` as the part of a link after the question mark."""
        return urlencode(self.to_query())

    @classmethod
    def from_query(cls, query: str | Mapping[str, Any] | None) -> ViewState:
        """Read a link's parameters. Anything strange in them counts as not given."""
        values = dict(parse_qsl(query.lstrip("?"))) if isinstance(query, str) else query
        if not isinstance(values, Mapping):
            return cls()
        text = {key: value for key, value in values.items() if isinstance(key, str) and isinstance(value, str)}
        return cls(
            view=_one_of(text.get("view"), VIEWS, "detections"),
            threshold=_number(text.get("t"), 0.0, 1.0),
            query=_integer(text.get("q"), 0, 100_000),
            point=_point(text.get("at")),
            scale=text["scale"] if _SCALE.match(text.get("scale", "")) else AUTO,
            step=text["step"] if _NAME.match(text.get("step", "")) else AUTO,
            head=_integer(text.get("head"), 1, 1000),
            hidden=tuple(sorted({name for name in text.get("hide", "").split(",") if _SCALE.match(name)})),
            example=text["example"] if _NAME.match(text.get("example", "")) else "",
            lang=_one_of(text.get("lang"), LANGUAGES, "en"),
            model=text["model"] if HUB_ID.match(text.get("model", "")) else "",
        )


def _one_of(text: str | None, known: tuple[str, ...], default: str) -> str:
    return text if text in known else default


def _number(text: str | None, low: float, high: float) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return min(max(value, low), high) if math.isfinite(value) else None


def _integer(text: str | None, low: int, high: int) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 9:
        return None
    value = int(text)
    return value if low <= value <= high else None


def _point(text: str | None) -> tuple[float, float] | None:
    parts = [_number(part, 0.0, 1.0) for part in (text or "").split(",")]
    return tuple(parts) if len(parts) == 2 and None not in parts else None
