"""The interleaved film: every encoder step's tokens, scale beside scale, then the decoder's boxes, with the ledger running."""

from __future__ import annotations

from typing import Any

from app.drawing import controls as settings
from app.drawing.canvas import Drawing
from app.i18n import say, step_name
from app.run.run import Run
from app.run.state import FILMS, ViewState
from app.views.film import boxes as film_boxes
from app.views.film import ledger
from app.views.film import panels as film_panels
from app.views.film.frames import Frame, film_of, frame_of
from app.views.view import View
from litedetr.positions import level_slices
from litedetr.schedule import scale_name


def drawing(run: Run, state: ViewState) -> Drawing:
    """The encoder's frames as one panel per scale, in the photo's place each; the decoder's as boxes over the photo."""
    frame = frame_of(run, state)
    if frame.step is not None and frame.step.kind == "decoder":
        return film_boxes.drawing(run, state, frame.step, at_rest=state.step == "boxes")
    return film_panels.drawing(run, state, frame)


def charts(run: Run, state: ViewState) -> list[Drawing]:
    """The ledger."""
    return [ledger.drawing(run, state.lang, frame_of(run, state).name)]


def controls(run: Run, state: ViewState) -> list[dict[str, Any]]:
    """What the tokens' pictures show."""
    options = [[film, say(state.lang, f"film.{film}")] for film in FILMS]
    return [settings.choice("film", say(state.lang, "film.show"), state.film, options)]


def summary(run: Run, state: ViewState) -> dict[str, Any]:
    """What the step did: tokens updated, multiply-adds so far beside the full encoder's, milliseconds, change per scale."""
    frame, entries, film = frame_of(run, state), ledger.ledger(run), film_of(run)
    sizes = _sizes(run)
    past = run.trace.encoder_steps[: frame.memory]
    place = next(index for index, entry in enumerate(entries) if entry.name == frame.name)
    times = [entry.milliseconds for entry in entries[: place + 1] if entry.milliseconds is not None]
    changes = [film.change[frame.memory][tokens] for tokens in level_slices(run.trace.spatial_shapes)]
    encoding = frame.step is not None and frame.step.kind != "decoder"
    numbers = {
        "step": state.step if state.step == "boxes" else frame.name,
        "frame": frame.index,
        "frames": len(run.trace.steps) + 1,
        "updated": sorted(frame.updated),
        "kept": sorted(set(sizes) - set(frame.updated)) if encoding else [],
        "tokens": {"updated": sum(sizes[scale] for scale in frame.updated), "all": sum(sizes.values())},
        "updates": {"ours": sum(step.queries for step in past), "full": len(past) * sum(sizes.values())},
        "gmacs": sum(entry.gmacs for entry in entries[: place + 1]),
        "full_gmacs": sum(entry.full for entry in entries[: place + 1]),
        "milliseconds": entries[place].milliseconds,
        "milliseconds_so_far": sum(times),
        "change": {scale: float(part.mean()) for scale, part in zip(sizes, changes, strict=True)} if encoding else {},
        "limit": film.limit,
        "largest": film.largest,
        "explained": film.explained,
        "clipped": film.clipped,
        "followed": [int(query) for query in film_boxes.followed(run, state)],
    }
    return numbers | _words(run, state, frame, numbers)


def _words(run: Run, state: ViewState, frame: Frame, numbers: dict[str, Any]) -> dict[str, Any]:
    def text(key: str, **values: Any) -> str:
        return say(state.lang, f"film.{key}", **values)

    count, spent = numbers["tokens"], numbers["milliseconds"]
    saved = 1 - numbers["gmacs"] / max(numbers["full_gmacs"], 1e-12)
    called = text("backbone") if frame.step is None else step_name(state.lang, frame.name)
    facts = [[text("frame"), f"{called} ({frame.index} / {len(run.trace.steps)})"]]
    if numbers["updated"]:
        share = 100 * count["updated"] / count["all"]
        facts.append([text("tokens"), f"{count['updated']:,} / {count['all']:,} ({share:.0f}%)"])
        facts.append([text("updates"), f"{numbers['updates']['ours']:,} / {numbers['updates']['full']:,}"])
    facts += [
        [text("spent"), f"{numbers['gmacs']:.3f} GMACs"],
        [text("spent.full"), f"{numbers['full_gmacs']:.3f} GMACs"],
        [text("saved"), f"{100 * saved:.1f}%"],
    ]
    if spent is not None:
        facts.append([text("time"), f"{spent:.1f} ms"])
        facts.append([text("time.sofar"), f"{numbers['milliseconds_so_far']:.1f} ms"])
    return {
        "facts": facts,
        "notes": _notes(run, state, frame, numbers, text),
        "caption": _caption(state, frame, numbers, text),
        "table": _table(run, state, text),
    }


def _caption(state: ViewState, frame: Frame, numbers: dict[str, Any], text: Any) -> str:
    if frame.step is None:
        return text("caption.backbone")
    if frame.step.kind == "decoder":
        return text("caption.decoder", step=frame.name, count=len(numbers["followed"]))
    updated, kept = ", ".join(numbers["updated"]), ", ".join(numbers["kept"])
    return text("caption.some", step=frame.name, updated=updated, kept=kept) if kept else text("caption.all", step=frame.name)


def _notes(run: Run, state: ViewState, frame: Frame, numbers: dict[str, Any], text: Any) -> list[str]:
    notes = []
    if frame.step is not None and frame.step.kind == "decoder":
        notes.append(text("note.decoder", count=len(numbers["followed"])))
    elif state.film == "colour":
        notes.append(text("note.colour", explained=f"{100 * numbers['explained']:.0f}"))
        notes.append(text("note.clipped", clipped=f"{100 * numbers['clipped']:.1f}"))
    else:
        notes.append(text("note.change", limit=f"{numbers['limit']:.2f}", largest=f"{numbers['largest']:.2f}"))
        if frame.step is None:
            notes.append(text("note.nothing"))
    if run.config.encoder_schedule.is_full:
        notes.append(text("note.full" if not run.config.key_aware else "note.full_kda"))
    notes.append(text("note.time"))
    return notes


def _table(run: Run, state: ViewState, text: Any) -> dict[str, Any]:
    head = [text("column.step"), text("column.tokens"), text("column.gmacs"), text("column.full"), "ms"]
    sizes = {step.name: f"{step.queries:,}" for step in run.trace.encoder_steps}
    rows = []
    for entry in ledger.ledger(run):
        time = "–" if entry.milliseconds is None else f"{entry.milliseconds:.1f}"
        cells = [step_name(state.lang, entry.name), sizes.get(entry.name, "–"), f"{entry.gmacs:.3f}", f"{entry.full:.3f}", time]
        rows.append({"cells": cells, "set": None if entry.name == "selection" else {"step": entry.name}})
    return {"head": head, "rows": rows}


def _sizes(run: Run) -> dict[str, int]:
    """Tokens of every scale, finest first."""
    shapes = run.trace.spatial_shapes
    return {scale_name(level, len(shapes)): height * width for level, (height, width) in enumerate(shapes)}


VIEW = View("film", drawing, summary, controls=controls, charts=charts, boxes=True, own=True)
