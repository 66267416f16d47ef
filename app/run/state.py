"""ViewState: everything a visitor selected, and its form in a link."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

LANGUAGES = ("en", "ko")
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}\Z", re.ASCII)
AUTO = "auto"
FILMS = ("colour", "change")
TOP = 200
"""How many of all sampling points are shown where nobody chose."""

_VIEW = re.compile(r"^[a-z_]{1,30}\Z", re.ASCII)
_SCALE = re.compile(r"^S[1-9]$")
_NAME = re.compile(r"^[\w .+-]{1,40}$")
_PLAN = re.compile(r"^H[1-9]L\d-\([1-9]\d?\+1\)x[1-9]\d?\Z", re.ASCII)
_MUTED = re.compile(r"^(step|S[1-9]|h[1-9]\d?(\.S[1-9]\.[1-9]\d?)?)\Z", re.ASCII)


@dataclass(frozen=True)
class ViewState:
    """What is looked at, how. Frozen: a selection makes a new state.

    Attributes:
        view: name of a view.
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
        classes: indices of the classes shown; empty for all.
        heat: footprints of the points are drawn, not the points.
        top: how many of all sampling points are shown.
        box: x1, y1, x2, y2 in [0, 1] of the photo, drawn by the visitor.
        mute: what is switched off: "h3" (a head), "S4" (a scale), "h3.S4.2" (a point, all counted from 1), "step".
        film: one of `FILMS`: tokens as colours, or their change since the step before.
        plan: a schedule in the paper's notation, "" for the model's own.
        other: a second model: a Hub id or a name, "" for none.
        tour: stop of the lesson, from 1; 0 for none.
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
    classes: tuple[int, ...] = ()
    heat: bool = False
    top: int = TOP
    box: tuple[float, float, float, float] | None = None
    mute: tuple[str, ...] = ()
    film: str = FILMS[0]
    plan: str = ""
    other: str = ""
    tour: int = 0

    def with_(self, **changes: Any) -> ViewState:
        """The same state with fields replaced."""
        return replace(self, **changes)

    def to_query(self) -> dict[str, str]:
        """Short text parameters; what has its default is left out."""
        return {key: text for key, text in self._texts().items() if text is not None and text != _DEFAULTS.get(key)}

    def _texts(self) -> dict[str, str | None]:
        return {
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
            "cls": ",".join(map(str, self.classes)) or None,
            "heat": "1" if self.heat else None,
            "n": str(self.top),
            "box": None if self.box is None else ",".join(f"{value:.4f}" for value in self.box),
            "mute": ",".join(self.mute) or None,
            "film": self.film,
            "plan": self.plan or None,
            "other": self.other or None,
            "tour": str(self.tour) if self.tour else None,
        }

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
            view=text["view"] if _VIEW.match(text.get("view", "")) else "detections",
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
            classes=_integers(text.get("cls"), 0, 9999),
            heat=text.get("heat") == "1",
            top=_integer(text.get("n"), 1, 100_000) or TOP,
            box=_box(text.get("box")),
            mute=tuple(sorted({part for part in text.get("mute", "")[:4000].split(",") if _MUTED.match(part)})),
            film=_one_of(text.get("film"), FILMS, FILMS[0]),
            plan=text["plan"] if _PLAN.match(text.get("plan", "")) else "",
            other=text["other"] if HUB_ID.match(text.get("other", "")) or _NAME.match(text.get("other", "")) else "",
            tour=_integer(text.get("tour"), 1, 99) or 0,
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


def _integers(text: str | None, low: int, high: int) -> tuple[int, ...]:
    values = {_integer(part, low, high) for part in (text or "")[:4000].split(",")}
    return tuple(sorted(values - {None}))


def _box(text: str | None) -> tuple[float, float, float, float] | None:
    """Two opposite corners -> x1 < x2, y1 < y2."""
    parts = [_number(part, 0.0, 1.0) for part in (text or "").split(",")]
    if len(parts) != 4 or None in parts:
        return None
    (x1, x2), (y1, y2) = sorted(parts[::2]), sorted(parts[1::2])
    return (x1, y1, x2, y2) if x2 - x1 >= 5e-4 and y2 - y1 >= 5e-4 else None


def _point(text: str | None) -> tuple[float, float] | None:
    parts = [_number(part, 0.0, 1.0) for part in (text or "").split(",")]
    return tuple(parts) if len(parts) == 2 and None not in parts else None


_DEFAULTS = ViewState()._texts()
KEYS = tuple(_DEFAULTS)
"""Everything that a link may hold."""
KEYS_VISITED = ("view", "q", "at", "example", "model", "box", "tour")
"""What the browser's Back undoes: what is looked at, not how."""
KEYS_OF_OWN_PHOTO = ("t", "scale", "step", "head", "hide", "lang", "model")
"""What it may hold where the photo is somebody's own."""
