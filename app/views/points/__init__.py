"""Where one query looks: its sampling points on every scale, as large and as opaque as their attention weight; or the footprints
of these points as one heat map."""

from __future__ import annotations

from typing import Any

import numpy as np

from app.drawing.canvas import GUTTER, Drawing, canvas, outlines
from app.drawing.marks import diameters, hoverlabel, query_box, sampling_points
from app.i18n import class_name, say, step_name
from app.run.choice import QueryChoice, choose
from app.run.run import Run
from app.run.state import ViewState
from app.theme import FONT, GROUND, HEAT, RIM, WHITE, class_colour, scale_colour
from app.views.points.footprints import footprint, kept_heads
from app.views.points.shares import shares_chart
from app.views.view import View

VEIL = 0.42
HEAT_VEIL = 0.55


def drawing(run: Run, state: ViewState) -> Drawing:
    """Points where they are, also outside the photo; one colour and mark per scale, the same measure of size for all."""
    chosen = choose(run, state)
    around = [outlines(run, state, 0.45, 1), *query_box(chosen)]
    if state.heat:
        return canvas(run, [_heat(run, state, chosen), *around, *_cross(chosen, state)], veil=HEAT_VEIL)
    shown = [scale for scale in chosen.step.scales if scale not in state.hidden]
    traces = [*around, *(_points(run, state, chosen, scale) for scale in shown), *_cross(chosen, state)]
    return canvas(run, traces, veil=VEIL, annotations=_beyond(run, state, chosen, shown), meta={"beyond": True})


def summary(run: Run, state: ViewState) -> dict[str, Any]:
    """The query in numbers: attention per scale and head, what lies outside, and the output rebuilt from the points."""
    chosen = choose(run, state)
    weights = chosen.weights.astype(np.float64)  # (M, L, P)
    shares = weights.sum(axis=2)  # (M, L), finest scale first
    height, width = run.size
    x, y = np.moveaxis(run.to_photo(chosen.locations), -1, 0)
    outside = (x < 0) | (x > width) | (y < 0) | (y > height)
    heads, levels, points = weights.shape
    order = list(reversed(range(levels)))  # S1 first, as names count
    numbers = _footprint_numbers(chosen, state) if state.heat else {"facts": [], "about": []}
    caption, notes = _caption(chosen, state), chosen.sentences(state.lang)
    return {
        "step": chosen.step.name,
        "kind": chosen.kind,
        "caption": caption,
        "line": {
            "mouse": f"{caption}. {notes[0] if notes else say(state.lang, 'hint.keys')}",
            "touch": f"{caption}. {notes[0]}" if notes else caption,
        },
        "facts": numbers["facts"],
        "about": numbers["about"],
        "query": chosen.query,
        "detection": _detection(run, state, chosen),
        "scale": chosen.scale,
        "cell": chosen.cell,
        "reference": chosen.reference,
        "scales": [chosen.step.scales[level] for level in order],
        "asking": sorted(chosen.step.query_scales),
        "heads": heads,
        "points": heads * levels * points,
        "shares": shares[:, order].tolist(),
        "mean": shares[:, order].mean(axis=0).tolist(),
        "sums": shares.sum(axis=1).tolist(),
        "outside": {"points": int(outside.sum()), "weight": float(weights[outside].sum() / heads)},
        "heaviest": float(weights.max()),
        "error": chosen.step.rebuild_error([chosen.row]),
        "notes": notes,
    }


def controls(run: Run, state: ViewState) -> list[dict[str, Any]]:
    """Points or footprints."""
    return [{"key": "heat", "kind": "toggle", "label": say(state.lang, "heat"), "value": state.heat}]


def charts(run: Run, state: ViewState) -> list[Drawing]:
    """Attention per scale and head, beside the query."""
    return [shares_chart(summary(run, state), state)]


def _caption(chosen: QueryChoice, state: ViewState) -> str:
    step = step_name(state.lang, chosen.step.name)
    if chosen.kind == "object":
        return f"{step} · {say(state.lang, 'query.object', query=chosen.query)}"
    column, row = chosen.cell
    return f"{step} · {say(state.lang, 'query.token', scale=chosen.scale, column=column + 1, row=row + 1)}"


def _footprint_numbers(chosen: QueryChoice, state: ViewState) -> dict[str, Any]:
    """Σ in words: nothing is lost and nothing is rescaled."""
    found = footprint(chosen, state)
    inside = sum(found.inside.values())
    facts = [[say(state.lang, "heat.sum"), f"{inside:.3f} + {found.outside:.3f} = {inside + found.outside:.3f}"]]
    if found.hidden:
        facts.append([say(state.lang, "heat.hidden"), f"{found.hidden:.3f}"])
    facts += [[scale, f"{share:.3f}"] for scale, share in found.inside.items()]
    return {"facts": facts, "about": [say(state.lang, "heat.note")]}


def _heat(run: Run, state: ViewState, chosen: QueryChoice) -> dict[str, Any]:
    """The footprint in percent per cell of the finest level; colours begin clear, so that the photo stays in sight."""
    grid = 100 * footprint(chosen, state).grid
    height, width = grid.shape
    (left, top), (right, bottom) = run.to_photo(np.array([[0.0, 0.0], [1.0, 1.0]]))
    dx, dy = (right - left) / width, (bottom - top) / height
    unit = say(state.lang, "heat.bar", stride=f"{dx:.0f}")
    bar = {
        "orientation": "h", "thickness": 10, "len": 0.46, "x": 0.985, "xanchor": "right", "y": 0.015, "yanchor": "bottom",
        "title": {"text": unit, "side": "top", "font": {"size": 12, "color": WHITE}}, "nticks": 5,
        "tickfont": {"size": 11, "color": WHITE}, "bgcolor": GROUND, "outlinewidth": 0, "xpad": 10, "ypad": 6,
    }  # fmt: skip
    return {
        "type": "heatmap",
        "name": "footprint",
        "meta": "footprint",
        "x0": left + dx / 2,
        "dx": dx,
        "y0": top + dy / 2,
        "dy": dy,
        "z": grid.astype(np.float32),
        "zmin": 0,
        "zmax": max(float(grid.max()), 1e-6),
        "colorscale": HEAT,
        "colorbar": bar,
        "hovertemplate": f"%{{z:.3f}} {unit}<extra></extra>",
        "zsmooth": False,
    }


def _beyond(run: Run, state: ViewState, chosen: QueryChoice, shown: list[str]) -> list[dict[str, Any]]:
    """A count at each border behind whose gutter points lie, so that none is lost from sight: where, how many, how heavy."""
    height, width = run.size
    gutter = GUTTER * max(height, width)
    levels = [chosen.step.scales.index(scale) for scale in shown]
    heads = kept_heads(chosen, state)
    x, y = np.moveaxis(run.to_photo(chosen.locations[heads][:, levels]).reshape(-1, 2), -1, 0)
    weights = chosen.weights[heads][:, levels].ravel() / heads.sum()
    past = np.stack((-x, x - width, -y, y - height))  # how far beyond each border
    side = np.where(past.max(axis=0) > gutter, past.argmax(axis=0), -1)
    marks = []
    for border, (text, along, size) in enumerate(
        (("◂ {}", y, height), ("{} ▸", y, height), ("▴ {}", x, width), ("▾ {}", x, width))
    ):
        there = side == border
        if not there.any():
            continue
        middle = float(np.clip(along[there], 0, size).mean())
        place = {0: (-gutter, middle), 1: (width + gutter, middle), 2: (middle, -gutter), 3: (middle, height + gutter)}[border]
        count, weight = int(there.sum()), f"{100 * weights[there].sum():.1f}%"
        key = "points.beyond.one" if count == 1 else "points.beyond"
        words = say(state.lang, key, count=count, weight=weight, distance=f"{past[border][there].max():.0f}")
        marks.append(
            {
                "name": f"beyond {('left', 'right', 'top', 'bottom')[border]}",
                "x": place[0],
                "y": place[1],
                "xanchor": ("left", "right", "center", "center")[border],
                "yanchor": ("middle", "middle", "top", "bottom")[border],
                "text": text.format(count),
                "hovertext": words,
                "showarrow": False,
                "bgcolor": GROUND,
                "font": {"color": WHITE, "size": 12, "family": FONT, "weight": 600},
                "borderpad": 3,
            }
        )
    return marks


def _detection(run: Run, state: ViewState, chosen: QueryChoice) -> dict[str, Any] | None:
    """The best class of the query at the step (an object) or at the end (a token's later object)."""
    if chosen.query is None:
        return None
    layer = run.trace.decoder_steps.index(chosen.step) if chosen.kind == "object" else -1
    logits = run.trace.logits[layer, chosen.query].float()
    label = int(logits.argmax())
    name = class_name(state.lang, run.config.names[label])
    return {"name": name, "score": float(logits[label].sigmoid()), "colour": class_colour(label)}


def _points(run: Run, state: ViewState, chosen: QueryChoice, scale: str) -> dict[str, Any]:
    level = chosen.step.scales.index(scale)
    weights = chosen.weights[:, level]  # (M, P)
    heads, points = np.indices(weights.shape)
    kept = kept_heads(chosen, state)
    weights, heads, points = (values[kept].ravel() for values in (weights, heads, points))
    x, y = np.moveaxis(run.to_photo(chosen.locations[kept, level]).reshape(-1, 2), -1, 0)
    order = np.argsort(-weights, kind="stable")  # heavy ones below, so that light ones stay visible
    relative = weights[order] / max(float(chosen.weights.max()), 1e-12)
    details = np.stack((heads[order] + 1, points[order] + 1, weights[order]), axis=1).astype(np.float32)
    words = {key: say(state.lang, key) for key in ("head", "point", "weight")}
    return sampling_points(
        scale,
        x[order],
        y[order],
        {"size": diameters(relative), "opacity": (0.42 + 0.53 * relative).astype(np.float32)},
        customdata=details,
        hovertemplate=(
            f"<b>{scale}</b> · {words['head']} %{{customdata[0]}} · {words['point']} %{{customdata[1]}}<br>"
            f"{words['weight']} %{{customdata[2]:.4f}}<extra></extra>"
        ),
        hoverlabel=hoverlabel(scale_colour(scale)),
        cliponaxis=False,
    )


def _cross(chosen: QueryChoice, state: ViewState) -> list[dict[str, Any]]:
    x, y = chosen.reference
    common = {"type": "scatter", "mode": "markers", "x": [x], "y": [y], "name": "reference"}
    words = f"<b>{say(state.lang, 'reference')}</b><br>x %{{x:.1f}}, y %{{y:.1f}}<extra></extra>"
    halo = {"symbol": "cross-thin", "size": 24, "line": {"width": 6, "color": RIM}}
    mark = {"symbol": "cross-thin", "size": 22, "line": {"width": 2.5, "color": WHITE}}
    return [{**common, "marker": halo, "hoverinfo": "skip"}, {**common, "marker": mark, "hovertemplate": words}]


VIEW = View("points", drawing, summary, controls=controls, charts=charts, cards=("query",))
