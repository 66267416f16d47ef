"""The stops of the step rail: the model itself, in the order in which it works."""

from __future__ import annotations

from typing import Any

from app.run.run import Run


def stops(run: Run) -> list[dict[str, Any]]:
    """One dict per stop: name, kind, block, the scales it updates, how many queries it has and its GMACs."""
    cost, encoder = run.cost, run.trace.encoder_steps
    layers = max(len(run.trace.decoder_steps), 1)
    gmacs = dict(zip((step.name for step in encoder), cost.steps, strict=True))
    steps = [
        {
            "name": step.name,
            "kind": step.kind,
            "block": step.block,
            "updates": sorted(step.query_scales),
            "queries": step.queries,
            "gmacs": gmacs.get(step.name, cost.decoder / layers),
        }
        for step in run.trace.steps
    ]
    ends = {"block": None, "updates": [], "queries": 0}
    first = {"name": "backbone", "kind": "backbone", "gmacs": cost.backbone + cost.neck, **ends}
    return [first, *steps, {"name": "boxes", "kind": "boxes", "gmacs": 0.0, **ends}]
