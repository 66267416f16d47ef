"""The page's figures of somebody's own model, for notebooks:

with litedetr.watch(model) as trace:
    model(**inputs)
show(trace, photo, view="points", query=0, step="decoder 3")
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from torch.nn import functional

from app.engine.engine import shown_picture
from app.figure import FigureError, with_photo
from app.run.run import Run
from app.run.state import ViewState
from app.views import VIEWS, view_of
from litedetr import Detections, Trace
from litedetr.cost import Cost
from litedetr.guests.detector import GuestConfig
from litedetr.image import Photo, PhotoGeometry, open_photo

MODEL = "this model"


def show(
    what: Trace | Detections, photo: Photo, view: str = "points", names: Sequence[str] | None = None, **state: Any
) -> go.Figure:
    """The figure that the page draws of a photo and what a model looked at in it.

    Args:
        what: the trace of `litedetr.watch`, or what `predict(photo, trace=True)` found.
        photo: as the model saw it: a path, encoded bytes, a PIL image or an RGB array. It fills the network's input where the
            trace does not say how it lies there.
        view: "points", "detections", "attended", "lookers", "onion" or "leak".
        names: of the classes, where `what` is a trace.
        state: what is selected, as `app.run.state.ViewState` has it: ``query=0, step="decoder 3", head=2``, or
            ``point=(0.5, 0.5), step="encoder 6", scale="S1"``.

    Raises:
        FigureError: there is no such view, or it cannot show what the trace has.
        litedetr.image.PhotoError: the picture is broken, empty or too large.
    """
    if view not in VIEWS:
        raise FigureError(f"expected one of the views {', '.join(VIEWS)}, got {view!r}: choose one of them.")
    pixels = open_photo(photo)
    run = _run(what, pixels, names)
    chosen = ViewState(view=view, **state)
    why = view_of(view, run).needs(run, chosen)
    if why is not None:
        raise FigureError(why)
    return with_photo(view_of(view, run).figure(run, chosen), run)


def _run(what: Trace | Detections, pixels: np.ndarray, names: Sequence[str] | None) -> Run:
    size = tuple(pixels.shape[:2])
    trace = what if isinstance(what, Trace) else what.trace
    if trace is None or not trace.steps:
        raise FigureError("expected a trace with at least one step, got none: watch the model, or predict with trace=True.")
    trace = _complete(trace, size)
    classes = trace.logits.shape[-1]
    names = tuple(what.class_names if isinstance(what, Detections) else names or map(str, range(classes)))
    if len(names) < classes:
        raise FigureError(f"expected {classes} names, one for each class, got {len(names)}.")
    heads, layers = trace.steps[0].weights.shape[1], len(trace.decoder_steps)
    config = GuestConfig(MODEL, names, heads, layers, trace.geometry.padded)
    found = what if isinstance(what, Detections) else _found(trace, config, size)
    return Run(
        id=secrets.token_urlsafe(18),
        name="photo",
        model=MODEL,
        picture=shown_picture(pixels),
        detections=found,
        config=config,
        cost=Cost(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, (0.0,) * len(trace.encoder_steps), ()),
        photo=pixels,
    )


def _complete(trace: Trace, size: tuple[int, int]) -> Trace:
    """The same trace where it says how the photo lies in the input, and what each query's box and scores were after every layer:
    its reference points, and none, where the model did not tell."""
    layers = trace.decoder_steps
    logits, boxes = trace.logits, trace.boxes
    if boxes is None:
        starts = [step.reference_points[:, 0].float() for step in layers]
        starts = [functional.pad(start, (0, 4 - start.shape[-1])) for start in starts]
        boxes = torch.stack([*starts, starts[-1]]) if starts else torch.zeros(1, 0, 4)
    if logits is None or len(logits) < len(layers):
        last = logits[-1:] if logits is not None else torch.full((1, boxes.shape[1], 1), -torch.inf)
        before = torch.full_like(last, -torch.inf).expand(max(len(layers) - 1, 0), -1, -1)
        logits = torch.cat((before, last))
    geometry = trace.geometry or PhotoGeometry(size, size, size)
    return Trace(**(vars(trace) | {"geometry": geometry, "logits": logits, "boxes": boxes}))


def _found(trace: Trace, config: GuestConfig, size: tuple[int, int]) -> Detections:
    logits, boxes = trace.logits[-1].float().numpy(), trace.boxes[-1].float().numpy()
    if not logits.size:
        logits, boxes = np.full((1, config.num_classes), -np.inf, dtype=np.float32), np.zeros((1, 4), dtype=np.float32)
    return Detections.from_outputs(logits, boxes, size, config, 0.0, trace)
