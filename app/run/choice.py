"""From what a visitor chose to the query whose attention is shown, and from clicks and keys to choices."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from app.i18n import say
from app.run.run import Run
from app.run.state import AUTO, ViewState
from app.run.token_place import token_place
from litedetr import AttentionStep
from litedetr.positions import level_slices
from litedetr.schedule import scale_name


@dataclass(frozen=True)
class QueryChoice:
    """One query of one step.

    Attributes:
        step, index: the attention step and its place among all steps.
        row: the query's row in the step's arrays.
        kind: "token" (encoder) or "object" (decoder).
        scale, cell: a token's scale and its (column, row) there; None for an object.
        query: the decoder query: the object itself, or the one that the token became; None if it became none.
        reference: x, y of the reference point in the photo's pixels.
        box: xyxy in the photo's pixels: the token's cell, or the box that the object had when it asked.
        notes: (key, parameters) of sentences that say what was chosen where the choice could not be taken literally.
    """

    step: AttentionStep
    index: int
    row: int
    kind: str
    scale: str | None
    cell: tuple[int, int] | None
    query: int | None
    reference: tuple[float, float]
    box: tuple[float, float, float, float]
    notes: tuple[tuple[str, dict[str, str]], ...] = field(default=())

    def sentences(self, lang: str) -> list[str]:
        """The notes, written out."""
        return [say(lang, f"note.{key}", **values) for key, values in self.notes]

    @cached_property
    def locations(self) -> np.ndarray:
        """(M, L, P, 2) in [0, 1] of the padded image."""
        return self.step.locations[self.row].float().numpy()

    @cached_property
    def weights(self) -> np.ndarray:
        """(M, L, P); they sum to 1 per head."""
        return self.step.weights[self.row].float().numpy()


def choose(run: Run, state: ViewState) -> QueryChoice:
    """The query that the state means in this run. There always is one: notes say where it is the nearest sensible one."""
    state = _with_choice(run, state)
    step = _step(run, state)
    if step.kind == "decoder":
        return _object(run, state, step)
    return _token(run, state, step)


def pick(run: Run, state: ViewState, x: float, y: float) -> ViewState:
    """A click at x, y in [0, 1] of the photo (beyond it: its border).

    A detection is picked where objects ask (decoder layers, or no step chosen yet); in an encoder update every point is a token.
    """
    chosen = _named_step(run, state.step)
    if chosen is None or chosen.kind == "decoder":
        hit = detection_at(run, state, _within(x, y))
        if hit is not None:
            return state.with_(query=int(run.detections.queries[hit]), point=None)
    return pick_point(run, state, x, y)


def pick_point(run: Run, state: ViewState, x: float, y: float) -> ViewState:
    """A click that always means the point itself."""
    return state.with_(query=None, point=_within(x, y))


def pick_object(run: Run, state: ViewState, x: float, y: float) -> ViewState:
    """A click that always means a detection: the smallest that holds the point, else the one with the nearest centre."""
    point = _within(x, y)
    hit, shown = detection_at(run, state, point), run.shown(state.threshold, state.classes)
    if hit is None and len(shown):
        height, width = run.size
        boxes = run.detections.boxes[shown]
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        hit = int(shown[np.linalg.norm(centres - np.array([point[0] * width, point[1] * height]), axis=1).argmin()])
    if hit is None:
        return pick_point(run, state, x, y)
    return state.with_(query=int(run.detections.queries[hit]), point=None)


def _within(x: float, y: float) -> tuple[float, float]:
    return float(np.clip(x, 0.0, 1.0)), float(np.clip(y, 0.0, 1.0))


def move(run: Run, state: ViewState, dx: int, dy: int) -> ViewState:
    """An arrow key: the next token of the scale, or the next detection."""
    chosen = choose(run, state)
    if chosen.kind == "object":
        return move_object(run, state, dx, dy)
    height, width = _shapes(run)[chosen.scale]
    column = min(max(chosen.cell[0] + dx, 0), width - 1)
    row = min(max(chosen.cell[1] + dy, 0), height - 1)
    centre = run.to_photo(np.array([(column + 0.5) / width, (row + 0.5) / height]))
    photo_height, photo_width = run.size
    point = (float(np.clip(centre[0] / photo_width, 0, 1)), float(np.clip(centre[1] / photo_height, 0, 1)))
    return state.with_(query=None, point=point, scale=chosen.scale)


def move_object(run: Run, state: ViewState, dx: int, dy: int) -> ViewState:
    """An arrow key that always means a detection: the next one, or the one before; the first where none is chosen."""
    shown = run.shown(state.threshold, state.classes)
    if len(shown) == 0:
        return state
    ordered = list(dict.fromkeys(int(run.detections.queries[i]) for i in shown))
    place = (ordered.index(state.query) + (1 if dx + dy > 0 else -1)) % len(ordered) if state.query in ordered else 0
    return state.with_(query=ordered[place], point=None)


def detection_at(run: Run, state: ViewState, point: tuple[float, float]) -> int | None:
    """Index of the smallest shown detection that holds the point ([0, 1] of the photo)."""
    height, width = run.size
    x, y = point[0] * width, point[1] * height
    boxes = run.detections.boxes
    inside = [
        i
        for i in run.shown(state.threshold, state.classes)
        if boxes[i, 0] <= x <= boxes[i, 2] and boxes[i, 1] <= y <= boxes[i, 3]
    ]
    areas = [(boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1]) for i in inside]
    return int(inside[int(np.argmin(areas))]) if inside else None


def detection_of(run: Run, query: int | None) -> int | None:
    """Index of the best detection that a decoder query gave."""
    places = np.flatnonzero(run.detections.queries == query) if query is not None else ()
    return int(places[0]) if len(places) else None


def _with_choice(run: Run, state: ViewState) -> ViewState:
    """A state in which something is chosen: the best detection, or the photo's centre, where nothing valid was."""
    queries = run.trace.logits.shape[1]
    if state.query is not None and state.query < queries:
        return state
    if state.point is not None:
        return state.with_(query=None)
    shown = run.shown(state.threshold, state.classes)
    if len(shown):
        return state.with_(query=int(run.detections.queries[shown[0]]))
    return state.with_(query=None, point=(0.5, 0.5))


def _named_step(run: Run, name: str) -> AttentionStep | None:
    return next((step for step in run.trace.steps if step.name == name), None)


def _step(run: Run, state: ViewState) -> AttentionStep:
    named = _named_step(run, state.step)
    if named is not None:
        return named
    steps = run.trace.decoder_steps if state.query is not None else run.trace.encoder_steps
    return (steps or run.trace.steps)[-1]


def _shapes(run: Run) -> dict[str, tuple[int, int]]:
    shapes = run.trace.spatial_shapes
    return {scale_name(level, len(shapes)): shape for level, shape in enumerate(shapes)}


def _object(run: Run, state: ViewState, step: AttentionStep) -> QueryChoice:
    layer = run.trace.decoder_steps.index(step)
    height, width = run.size
    # What each query asked with: its box before this layer, relative to the photo.
    boxes = run.trace.boxes[layer].numpy().astype(np.float64) * np.array([width, height, width, height])
    query, notes = state.query, []
    if query is None:
        query, note = _nearest_object(run, state, boxes)
        notes.append(note)
    if state.scale != AUTO:
        notes.append(("scale_in_decoder", {"scale": state.scale}))
    centre, size = boxes[query, :2], boxes[query, 2:]
    reference = run.to_photo(step.reference_points[query, 0, :2].numpy())  # on the finest scale
    return QueryChoice(
        step=step,
        index=run.trace.steps.index(step),
        row=query,
        kind="object",
        scale=None,
        cell=None,
        query=query,
        reference=(float(reference[0]), float(reference[1])),
        box=(*(centre - size / 2).tolist(), *(centre + size / 2).tolist()),
        notes=tuple(notes),
    )


def _nearest_object(run: Run, state: ViewState, boxes: np.ndarray) -> tuple[int, tuple[str, dict[str, str]]]:
    """The object that stands for a point of the photo where only objects ask. Boxes: (Q, 4) cxcywh in the photo's pixels."""
    hit = detection_at(run, state, state.point)
    if hit is not None:
        return int(run.detections.queries[hit]), ("point_in_detection", {"name": run.detections.names[hit]})
    height, width = run.size
    target = np.array([state.point[0] * width, state.point[1] * height])
    distances = np.linalg.norm(boxes[:, :2] - target, axis=1)
    query = int(distances.argmin())
    return query, ("point_near_object", {"query": str(query), "distance": f"{distances[query]:.0f}"})


def _token(run: Run, state: ViewState, step: AttentionStep) -> QueryChoice:
    shapes, scales = _shapes(run), step.query_scales  # of the step's queries, finest first
    selected, notes = run.trace.selected_tokens, []
    height, width = run.size
    if state.query is not None and selected is None:  # single-stage models: queries are learned, no token became one
        centre = run.trace.boxes[-1, state.query, :2].double().numpy()
        notes.append(("token_at_object", {}))
        position = tuple(run.trace.geometry.from_photo(centre * (width, height)))
        wanted = scales[0] if state.scale == AUTO else state.scale
    elif state.query is not None:
        place = token_place(run, int(selected[state.query]))
        scale, column, row = place.scale, place.column, place.row
        notes.append(("token_of_object", {"scale": scale}))
        position = ((column + 0.5) / shapes[scale][1], (row + 0.5) / shapes[scale][0])
        wanted = scale if state.scale == AUTO else state.scale
    else:
        position = tuple(run.trace.geometry.from_photo(np.array([state.point[0] * width, state.point[1] * height])))
        wanted = scales[0] if state.scale == AUTO else state.scale
    scale = wanted if wanted in scales else scales[0]
    if scale != wanted:
        known = wanted in shapes
        asking = ", ".join(sorted(scales))
        notes.append(("scale_waits" if known else "scale_unknown", {"scale": wanted, "step": step.name, "asking": asking}))
    height, width = shapes[scale]
    column = min(max(int(position[0] * width), 0), width - 1)
    row = min(max(int(position[1] * height), 0), height - 1)
    level = list(shapes).index(scale)
    token = level_slices(run.trace.spatial_shapes)[level].start + row * width + column
    became = [] if selected is None else np.flatnonzero(selected.numpy() == token)
    corners = run.to_photo(np.array([[column / width, row / height], [(column + 1) / width, (row + 1) / height]]))
    asking = token - step.first_query
    reference = run.to_photo(step.reference_points[asking, level, :2].numpy())
    return QueryChoice(
        step=step,
        index=run.trace.steps.index(step),
        row=asking,
        kind="token",
        scale=scale,
        cell=(column, row),
        query=int(became[0]) if len(became) else None,
        reference=(float(reference[0]), float(reference[1])),
        box=tuple(corners.flatten().tolist()),
        notes=tuple(notes),
    )
