"""The desire map: how well one query of one head fits the key of every token, and the few that it sampled.

Key-aware deformable attention weighs its samples by softmax(q . k / sqrt(D)). Here the same logit is taken with every key of
every level, also those that were never sampled. Per head and level, over the tokens that are not padding:

    reached = (best sampled logit - mean logit) / (best logit - mean logit), at most 1,
    beaten  = the share of tokens whose logit is below the best sampled one.

Sampled logits are those that the attention itself used (keys read bilinearly, zeros outside); points whose place is outside the
picture do not count. `reached` is 1 where a point hit the best match, 0 where the best point was no better than the mean token,
and None where no point is inside or all tokens fit equally.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from app.drawing import controls as settings
from app.drawing.canvas import Drawing, outline
from app.drawing.chart import HEADS, ROW, chart, name_axis, value_axis
from app.drawing.marks import BAR, bar_below, cells, diameters, query_box, sampling_points
from app.drawing.panels import Panel, panels
from app.i18n import number, power, say
from app.run import bilinear
from app.run.choice import QueryChoice, choose
from app.run.run import Run
from app.run.state import ViewState
from app.run.step_queries import level_grid
from app.theme import BEST, LIT_ROW, RIM_OF_SMALL, WHITE, scale_colour, scale_symbol
from app.views.view import View
from litedetr.positions import level_slices

VEIL = 0.6
SMALLEST, LARGEST = 6.0, 16.0
"""Diameter in screen pixels of a point without weight and of the head's heaviest; area grows with weight."""


@dataclass(frozen=True)
class Desire:
    """The logits of one query. M heads, L levels (finest first), P points.

    Attributes:
        dense: per level (M, H, W); NaN at padding.
        sampled: (M, L, P) logits of the points, as the attention used them.
        counts: (M, L, P) bool, points in the picture.
        best, mean, top: (M, L) the level's best and mean logit, and the best sampled one (-inf where none counts).
        reached, beaten: (M, L); NaN where they mean nothing.
    """

    dense: list[np.ndarray]
    sampled: np.ndarray
    counts: np.ndarray
    best: np.ndarray
    mean: np.ndarray
    top: np.ndarray
    reached: np.ndarray
    beaten: np.ndarray

    def strongest(self) -> int:
        """The head whose best match stands out most from its mean."""
        return int((self.best - self.mean).max(axis=1).argmax())


def desire_of(run: Run, chosen: QueryChoice) -> Desire | None:
    """All heads and levels of a query, kept with the run; None where the attention has no keys."""
    if chosen.step.key is None or chosen.step.query is None:
        return None
    return run.extras.memo(f"desire {chosen.step.name} {chosen.row}", lambda: _desire(run, chosen))


def _desire(run: Run, chosen: QueryChoice) -> Desire:
    step = chosen.step
    query, key = step.query[chosen.row].float().numpy(), step.key.float().numpy()  # (M, D), (S, M, D)
    logits = np.einsum("md,smd->ms", query, key, optimize=True) / np.sqrt(query.shape[1])
    padding = np.zeros(len(key), dtype=bool) if run.trace.padding is None else run.trace.padding.numpy()
    locations = chosen.locations
    counts = ((locations >= 0) & (locations <= 1)).all(axis=-1)
    dense, sampled, rows, slices = [], [], [], level_slices(step.spatial_shapes)
    for level, (height, width) in enumerate(step.spatial_shapes):
        tokens = slices[level]
        read = bilinear.sample(logits[:, tokens].reshape(-1, height, width), locations[:, level])  # keys at padding are zeros
        dense.append(np.where(padding[tokens], np.nan, logits[:, tokens]).reshape(-1, height, width))
        sampled.append(read)
        rows.append(_compare(logits[:, tokens][:, ~padding[tokens]], np.where(counts[:, level], read, -np.inf).max(axis=1)))
    best, mean, top, reached, beaten = np.stack(rows, axis=-1)  # (M, L) each
    return Desire(dense, np.stack(sampled, axis=1), counts, best, mean, top, reached, beaten)


def drawing(run: Run, state: ViewState) -> Drawing:
    """The map of each level that is not hidden, on one measure, with the head's points; without keys, the points alone."""
    chosen = choose(run, state)
    desire = desire_of(run, chosen)
    head = _head(run, state, desire)
    contents = [_panel(run, state, chosen, desire, head, level) for level in _levels(chosen, state)]
    plot = panels(run, contents, veil=VEIL)
    if desire is not None:
        values = np.concatenate([level[head].ravel() for level in desire.dense])
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        plot["layout"]["coloraxis"] = {"cmin": low, "cmax": high, "colorscale": "Viridis"}
        plot["layout"]["coloraxis"]["colorbar"] = bar_below(say(state.lang, "desire.logit"))
        plot["layout"]["margin"]["b"] = BAR
        plot["layout"]["meta"]["tall"] += 0.12  # on a phone, for the colour bar
    return plot


def summary(run: Run, state: ViewState) -> dict[str, Any]:
    """``head`` from 1, ``scales`` S1 first, and per head and scale (rows and columns) ``best``, ``mean``, ``top``, ``reached``,
    ``beaten`` (None where they mean nothing); ``error``: the attention weights made again from the logits, largest difference."""
    chosen, lang = choose(run, state), state.lang
    desire = desire_of(run, chosen)
    notes = chosen.sentences(lang)
    scales = list(reversed(chosen.step.scales))
    common = {"step": chosen.step.name, "query": chosen.query, "scales": scales}
    if desire is None:
        notes = [say(lang, "desire.note.none", model=run.model), say(lang, "desire.note.instead"), *notes]
        return {**common, "head": None, "facts": [], "notes": notes, "caption": say(lang, "desire.caption.none")}
    head, P = _head(run, state, desire), desire.sampled.shape[2]
    if state.head is None:
        notes.insert(0, say(lang, "desire.note.head", head=head + 1))
    notes += [say(lang, "desire.note.reached"), say(lang, "desire.note.beaten", points=P, chance=f"{P / (P + 1):.0%}")]
    if len(_levels(chosen, state)) < len(scales):
        notes.append(say(lang, "desire.note.scale"))
    numbers = {name: _lists(getattr(desire, name)[:, ::-1]) for name in ("best", "mean", "top", "reached", "beaten")}
    return {
        **common,
        **numbers,
        "head": head + 1,
        "error": _rebuild_error(chosen, desire),
        "facts": _facts(chosen, desire, head, lang),
        "notes": notes,
        "caption": say(lang, "desire.caption", head=head + 1),
        "badge": say(lang, "desire.badge", error=power(_rebuild_error(chosen, desire))),
        "table": {
            "head": [say(lang, key) for key in ("desire.scale", "desire.best", "desire.top", "desire.reached", "desire.beaten")],
            "rows": [_row(chosen, desire, head, level) for level in reversed(range(len(scales)))],
        },
    }


def controls(run: Run, state: ViewState) -> list[dict[str, Any]]:
    """Which head, and one level or all."""
    chosen = choose(run, state)
    head, heads = _head(run, state, desire_of(run, chosen)), chosen.step.weights.shape[1]
    return [
        settings.head(state.lang, heads, head + 1, every=False),
        settings.one_scale(state, say(state.lang, "desire.maps"), chosen.step.scales),
    ]


def charts(run: Run, state: ViewState) -> list[Drawing]:
    """What every head reached, per scale."""
    chosen = choose(run, state)
    desire = desire_of(run, chosen)
    return [] if desire is None else [_heads_chart(chosen, desire, _head(run, state, desire), state.lang)]


def needs(run: Run, state: ViewState) -> str | None:
    """Keys."""
    return None if run.config.key_aware else say(state.lang, "desire.note.none", model=run.model)


def _compare(logits: np.ndarray, top: np.ndarray) -> np.ndarray:
    """(M, N) logits of a level's tokens and (M,) best sampled ones -> (5, M): best, mean, top, reached, beaten."""
    if not logits.shape[1]:  # a level that is all padding
        return np.stack((*[np.full(len(top), np.nan)] * 2, top, *[np.full(len(top), np.nan)] * 2))
    best, mean = logits.max(axis=1), logits.mean(axis=1, dtype=np.float64)
    some = np.isfinite(top)
    range_ = best - mean
    with np.errstate(invalid="ignore", divide="ignore"):
        reached = np.where(some & (range_ > 1e-9), np.minimum((top - mean) / range_, 1), np.nan)
    beaten = np.where(some, (logits < top[:, None]).mean(axis=1), np.nan)
    return np.stack((best, mean, top, reached, beaten))


def _head(run: Run, state: ViewState, desire: Desire | None) -> int:
    """The head chosen, from 0; the strongest where none or no such is."""
    heads = run.config.heads
    if state.head is not None and state.head <= heads:
        return state.head - 1
    return 0 if desire is None else desire.strongest()


def _levels(chosen: QueryChoice, state: ViewState) -> list[int]:
    """Levels that are drawn, coarsest (S1) first; all where all are hidden."""
    scales = chosen.step.scales
    kept = [level for level in reversed(range(len(scales))) if scales[level] not in state.hidden]
    return kept or list(reversed(range(len(scales))))


def _rebuild_error(chosen: QueryChoice, desire: Desire) -> float:
    """Softmax of the sampled logits against the attention's own weights: largest difference."""
    raised = np.exp(desire.sampled - desire.sampled.max(axis=(1, 2), keepdims=True), dtype=np.float64)
    return float(np.abs(raised / raised.sum(axis=(1, 2), keepdims=True) - chosen.weights).max())


def _lists(values: np.ndarray) -> list[list[float | None]]:
    return [[float(value) if np.isfinite(value) else None for value in row] for row in values]


def _facts(chosen: QueryChoice, desire: Desire, head: int, lang: str) -> list[list[str]]:
    """The head over all levels at once."""
    level = int(np.nanargmax(desire.best[head]))
    there = np.nanmax(desire.best[head])
    top = desire.top[head]
    found = [[say(lang, "desire.wanted"), say(lang, "desire.at", logit=number(there), scale=chosen.step.scales[level])]]
    if np.isfinite(top.max()):
        where = chosen.step.scales[int(top.argmax())]
        found.append([say(lang, "desire.got"), say(lang, "desire.at", logit=number(top.max()), scale=where)])
    reached = desire.reached
    known = np.isfinite(reached)
    if known.any():
        found.append([say(lang, "desire.mean"), number(reached[known].mean(), ".0%")])
    return found


def _row(chosen: QueryChoice, desire: Desire, head: int, level: int) -> dict[str, Any]:
    scales = chosen.step.scales
    top = desire.top[head, level]
    cells = [scales[level], number(desire.best[head, level]), number(top)]
    cells += [number(desire.reached[head, level], ".0%"), number(desire.beaten[head, level], ".0%")]
    return {"cells": cells, "set": {"hide": ",".join(sorted(scale for scale in scales if scale != scales[level]))}}


def _panel(run: Run, state: ViewState, chosen: QueryChoice, desire: Desire | None, head: int, level: int) -> Panel:
    scale = chosen.step.scales[level]
    title = scale
    traces: list[dict[str, Any]] = []
    if desire is not None:
        if np.isfinite(desire.reached[head, level]):
            title = say(state.lang, "desire.title", scale=scale, reached=number(desire.reached[head, level], ".0%"))
        traces.append(_map(run, desire.dense[level][head], scale))
        traces.append(_best(run, desire.dense[level][head], state.lang))
    traces += query_box(chosen)
    return Panel(title, [*traces, _points(run, state, chosen, desire, head, level)])


def _map(run: Run, logits: np.ndarray, scale: str) -> dict[str, Any]:
    return cells(
        logits.astype(np.float32),
        level_grid(run, logits.shape),
        coloraxis="coloraxis",
        opacity=0.7,
        name=f"map {scale}",
        hovertemplate=f"<b>{scale}</b> · %{{z:.3f}}<extra></extra>",
    )


def _best(run: Run, logits: np.ndarray, lang: str) -> dict[str, Any]:
    """A frame around the cell that fits best."""
    row, column = np.unravel_index(int(np.nanargmax(logits)), logits.shape) if np.isfinite(logits).any() else (0, 0)
    width, height = level_grid(run, logits.shape)
    path = outline((column * width, row * height, (column + 1) * width, (row + 1) * height))
    line = {"color": BEST, "width": 2.5}
    return {"type": "scatter", "mode": "lines", **path, "line": line, "hoverinfo": "skip", "name": "best"}


def _points(run: Run, state: ViewState, chosen: QueryChoice, desire: Desire | None, head: int, level: int) -> dict[str, Any]:
    """The head's points on the level, as large as their weight; hollow, so that the map shows through."""
    scale = chosen.step.scales[level]
    weights = chosen.weights[head, level]
    x, y = np.moveaxis(run.to_photo(chosen.locations[head, level]), -1, 0)
    relative = weights / max(float(chosen.weights[head].max()), 1e-12)
    logits = np.full(len(weights), np.nan) if desire is None else desire.sampled[head, level]
    words = {key: say(state.lang, key) for key in ("point", "weight")} | {"logit": say(state.lang, "desire.logit")}
    hover = f"<b>{scale}</b> · {words['point']} %{{customdata[0]}}<br>{words['weight']} %{{customdata[1]:.4f}}"
    hover += "" if desire is None else f"<br>{words['logit']} %{{customdata[2]:.3f}}"
    return sampling_points(
        scale,
        x,
        y,
        {"size": diameters(relative, SMALLEST, LARGEST), "opacity": 1, "line": {"width": 2, "color": WHITE}},
        customdata=np.stack((np.arange(len(weights)) + 1, weights, np.nan_to_num(logits)), axis=1).astype(np.float32),
        hovertemplate=hover + "<extra></extra>",
    )


def _heads_chart(chosen: QueryChoice, desire: Desire, head: int, lang: str) -> Drawing:
    """One row per head, one mark per scale: from the mean token (0) to the best match (1)."""
    names = [f"{say(lang, 'head')} {number + 1}" for number in range(len(desire.best))]
    traces = []
    for level in reversed(range(len(desire.dense))):
        scale, values = chosen.step.scales[level], desire.reached[:, level]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": scale,
                "x": [float(value) if np.isfinite(value) else None for value in values],
                "y": names,
                "customdata": [{"set": {"head": str(number + 1)}} for number in range(len(names))],
                "marker": {
                    "color": scale_colour(scale),
                    "symbol": scale_symbol(scale),
                    "size": 10,
                    "opacity": [1.0 if number == head else 0.75 for number in range(len(names))],
                    "line": {"width": 1, "color": RIM_OF_SMALL},
                },
                "hovertemplate": f"<b>{scale}</b> · %{{y}}<br>%{{x:.1%}}<extra></extra>",
            }
        )
    known = desire.reached[np.isfinite(desire.reached)]
    low = min(0.0, float(known.min(initial=0.0))) - 0.06
    band = {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": head - 0.5, "y1": head + 0.5, "line": {"width": 0}}
    shapes = [{**band, "fillcolor": LIT_ROW, "layer": "below"}]
    axes = {"xaxis": value_axis(tickformat=".0%", range=[low, 1.06]), "yaxis": name_axis(type="category")}
    scales = list(reversed(chosen.step.scales))
    drawn = chart(traces, say(lang, "desire.chart"), ROW * len(names), scales=scales, shapes=shapes, **axes)
    drawn["layout"]["margin"] |= {"l": HEADS}
    return drawn


VIEW = View("desire", drawing, summary, group="understand", controls=controls, charts=charts, needs=needs, own=True)
