"""Design a schedule: which scales each encoder layer updates, what that costs beside the full encoder, and what the paper got."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from app.drawing.canvas import Drawing, ground
from app.i18n import say, step_name
from app.run.run import Run
from app.run.state import ViewState
from app.theme import DIVIDER, READ, READ_EDGE, scale_colour
from app.views.schedule.charts import gmacs_chart, plans_chart
from app.views.schedule.stopwatch import milliseconds
from app.views.schedule.trained import study, study_chart
from app.views.view import View
from litedetr import DetectorConfig, EncoderSchedule
from litedetr.config import preset
from litedetr.cost import full_encoder, gmacs
from litedetr.cost.paper import ROWS
from litedetr.schedule import scale_name

MOST = 6
"""High-level updates in a block, and blocks, that the sliders reach."""


def drawing(run: Run, state: ViewState) -> Drawing:
    """The paper's figure 2 for this schedule: a row per scale, a column per layer; what a layer updates is filled."""
    plan = planned(run, state)
    tokens = gmacs(with_schedule(run.config, plan), _size(run)).tokens
    names = [scale_name(level, plan.levels) for level in range(plan.levels)]
    traces = [_row(plan, level, names[level], tokens[level], state.lang) for level in range(plan.levels)]
    steps = plan.steps()
    heading = {"xref": "x", "yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False, "captureevents": False}
    blocks = [
        {**heading, "x": (plan.updates - 1) / 2 + plan.updates * block, "text": f"<b>B{block + 1}</b>", "yshift": 6}
        for block in range(plan.blocks)
    ]
    edges = [
        {"type": "line", "xref": "x", "yref": "paper", "x0": place, "x1": place, "y0": 0, "y1": 1, "line": _EDGE}
        for place in (plan.updates * block - 0.5 for block in range(1, plan.blocks))
    ]
    counts = [say(state.lang, "schedule.tokens", tokens=_count(count)) for count in tokens]
    labels = [f"<b>{name}</b><br>{count}" for name, count in zip(names, counts, strict=True)]
    axis = {"zeroline": False, "showgrid": False, "fixedrange": True, "ticks": ""}
    return {
        "data": traces,
        "layout": {
            **ground(),
            "xaxis": {
                **axis,
                "tickvals": [step.index for step in steps],
                "ticktext": [step_name(state.lang, step.kind) for step in steps],
                "range": [-0.6, len(steps) - 0.4],
                "title": {"text": say(state.lang, "schedule.layers"), "font": {"size": 13}, "standoff": 8},
            },
            "yaxis": {**axis, "tickvals": list(range(plan.levels)), "ticktext": labels, "range": [-0.6, plan.levels - 0.4]},
            "barmode": "overlay",
            "bargap": 0.14,
            "margin": {"l": 96, "r": 16, "t": 44, "b": 56},
            "showlegend": False,
            "annotations": blocks,
            "shapes": edges,
            "meta": {"panels": []},
        },
    }


def summary(run: Run, state: ViewState) -> dict[str, Any]:
    """The schedule in numbers: tokens updated, multiply-adds and measured time of the encoder beside the full one."""
    plan, lang = planned(run, state), state.lang
    cost, full = costs(run, plan)
    times = run.extras.get(job(run, state))
    share = cost.encoder / full.encoder
    facts = [
        [say(lang, "schedule.layers"), f"{len(plan.steps())}"],
        [say(lang, "schedule.updated"), f"{_count(updated(run, plan))} / {_count(len(plan.steps()) * sum(cost.tokens))}"],
        [say(lang, "schedule.encoder"), f"{cost.encoder:.2f} GMACs"],
        [say(lang, "schedule.full"), f"{full.encoder:.2f} GMACs"],
        [say(lang, "schedule.share"), f"{100 * share:.0f}%"],
    ]
    if times is not None:
        ratio = times["plan"] / times["full"]
        facts += [
            [say(lang, "schedule.ms"), f"{times['plan']:.1f} ms"],
            [say(lang, "schedule.full_ms"), f"{times['full']:.1f} ms"],
            [say(lang, "schedule.ms_share"), f"{100 * ratio:.0f}%"],
        ]
    rows = published(plan)
    notes = [say(lang, "schedule.note.unmeasured" if times is None else "schedule.note.weights")]
    notes += [] if rows else [say(lang, "schedule.note.unpublished")]
    notes += [say(lang, "schedule.note.no_low")] if plan.is_full else []
    if found := study():
        notes.append(say(lang, "schedule.study.note", photos=_count(found["photos"]), size=found["size"]))
    return {
        "plan": str(plan),
        "tokens": list(cost.tokens),
        "updated": updated(run, plan),
        "gmacs": cost.encoder,
        "full": full.encoder,
        "share": share,
        "milliseconds": times,
        "published": rows,
        "facts": facts,
        "notes": notes,
        "caption": say(lang, "schedule.caption", plan=str(plan), share=f"{100 * share:.0f}"),
        "table": {
            "head": [say(lang, "schedule.paper"), "AP", say(lang, "schedule.full_ap")],
            "rows": [{"cells": [row["model"], f"{row['ap']:.1f}", f"{row['full_ap']:.1f}"], "set": None} for row in rows],
        },
    }


def controls(run: Run, state: ViewState) -> list[dict[str, Any]]:
    """H, A and B; each place of a slider is a whole schedule."""
    plan, lang = planned(run, state), state.lang
    levels = run.config.levels
    parts = {
        "H": (plan.high, [replace(plan, high=high, low=levels - high) for high in range(1, levels + 1)]),
        "A": (plan.updates, [replace(plan, updates=updates) for updates in range(1, MOST + 1)]),
        "B": (plan.blocks, [replace(plan, blocks=blocks) for blocks in range(1, MOST + 1)]),
    }
    return [
        {
            "key": "plan",
            "kind": "range",
            "label": say(lang, f"schedule.{name}"),
            "min": 1,
            "max": len(plans),
            "value": value,
            "values": list(map(str, plans)),
        }
        for name, (value, plans) in parts.items()
    ]


def charts(run: Run, state: ViewState) -> list[Drawing]:
    """Multiply-adds layer by layer, and the share of the full encoder's over all H and A with as many layers."""
    plan = planned(run, state)
    cost, full = costs(run, plan)
    layers = plan.updates * plan.blocks
    splits = [updates for updates in range(1, layers + 1) if layers % updates == 0]
    plans = [
        [EncoderSchedule(high, run.config.levels - high, updates, layers // updates) for updates in splits]
        for high in range(1, run.config.levels + 1)
    ]
    shares = [[_share(run, other) for other in row] for row in plans]
    found = study()
    trained = [study_chart(found, plan, state.lang)] if found and run.config.levels == 4 else []
    return [gmacs_chart(plan, cost, full, state.lang), plans_chart(plans, shares, plan, state.lang), *trained]


def job(run: Run, state: ViewState) -> str | None:
    """The time of this schedule's encoder."""
    return f"schedule {planned(run, state)}"


def work(run: Run, state: ViewState, detectors: Callable[..., Any], report: Callable[[float, str], None]) -> dict[str, float]:
    """Median milliseconds of the encoder with this schedule and of the full one, measured in turns on this photo's tokens."""
    plan = planned(run, state)
    return milliseconds(
        run, {"plan": with_schedule(run.config, plan), "full": full_encoder(with_schedule(run.config, plan))}, report
    )


# ---- what the parts above share ----


def planned(run: Run, state: ViewState) -> EncoderSchedule:
    """The visitor's schedule where it fits the model's scales, else the model's own."""
    own = run.config.encoder_schedule
    if not state.plan:
        return own
    plan = EncoderSchedule.parse(state.plan)
    return plan if plan.levels == own.levels and plan.updates * plan.blocks <= MOST * MOST else own


def with_schedule(config: DetectorConfig, plan: EncoderSchedule) -> DetectorConfig:
    """The model with another schedule; without low-level scales there is no narrow network for their tokens."""
    return replace(config, schedule=str(plan), low_ffn=config.low_ffn if plan.low else None)


def costs(run: Run, plan: EncoderSchedule):
    """`Cost` with the schedule, and with the full encoder of as many layers and plain attention."""
    config = with_schedule(run.config, plan)
    return gmacs(config, _size(run)), gmacs(full_encoder(config), _size(run))


def updated(run: Run, plan: EncoderSchedule) -> int:
    """Tokens that the encoder updates in all its layers together."""
    tokens = gmacs(with_schedule(run.config, plan), _size(run)).tokens
    return sum(tokens[level] for step in plan.steps() for level in step.query_levels)


def published(plan: EncoderSchedule) -> list[dict[str, Any]]:
    """The paper's models with this schedule: AP on COCO val2017, and that of the same model with the full encoder."""
    found = []
    for row in ROWS:
        config = preset(row.model)
        if config.encoder_schedule != plan or plan.is_full:
            continue
        full = next(
            other.ap
            for other in ROWS
            if preset(other.model).encoder_schedule.is_full
            and (preset(other.model).family, preset(other.model).backbone) == (config.family, config.backbone)
        )
        found.append({"model": row.model, "ap": row.ap, "full_ap": full})
    return found


_EDGE = {"color": DIVIDER, "width": 1, "dash": "dot"}


def _row(plan: EncoderSchedule, level: int, name: str, tokens: int, lang: str) -> dict[str, Any]:
    """One scale through all layers: filled where it is updated, an outline where it is only read."""
    steps = plan.steps()
    asks = [level in step.query_levels for step in steps]
    colour = scale_colour(name)
    words = [say(lang, "schedule.is_updated" if ask else "schedule.is_read", tokens=_count(tokens)) for ask in asks]
    return {
        "type": "bar",
        "name": name,
        "x": [step.index for step in steps],
        "y": [0.76] * len(steps),
        "base": [level - 0.38] * len(steps),
        "marker": {
            "color": [colour if ask else READ for ask in asks],
            "line": {"color": [colour if ask else READ_EDGE for ask in asks], "width": 1},
        },
        "customdata": [step_name(lang, step.name) for step in steps],
        "text": words,
        "textposition": "none",
        "hovertemplate": f"<b>{name}</b> · %{{customdata}}<br>%{{text}}<extra></extra>",
        "meta": name,
    }


def _share(run: Run, plan: EncoderSchedule) -> float:
    cost, full = costs(run, plan)
    return cost.encoder / full.encoder


def _size(run: Run) -> tuple[int, int]:
    return run.trace.geometry.padded


def _count(number: int) -> str:
    """With a comma between thousands."""
    return f"{number:,}"


VIEW = View(
    "schedule", drawing, summary, group="change", controls=controls, charts=charts, job=job, work=work, rail=False, own=True
)
