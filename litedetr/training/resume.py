"""What has to be the same where a training goes on."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from litedetr.training.annotations import few
from litedetr.training.recipes import Recipe

log = logging.getLogger(__name__)
LENGTH_FIELDS = {
    "patience",
    "steps",
    "seconds",
    "checkpoint_seconds",
    "log_steps",
    "evaluate_seconds",
    "evaluate_pictures",
    "threads",
    "workers",
}
"""Parts of a recipe that may change when a run is resumed."""


def check_recipe(before: Recipe, now: Recipe, allow_changes: bool) -> None:
    """Refuse to go on with another recipe by accident."""
    old, new = asdict(before), asdict(now)
    changed = sorted(name for name in new if new[name] != old[name] and name not in LENGTH_FIELDS)
    if changed and not allow_changes:
        raise ValueError(
            f"expected the recipe that this run was started with, got other values of {changed}; use the old recipe, "
            "another folder, or allow changes"
        )
    if changed:
        log.warning("going on with other values of %s", changed)


def check_classes(before: list[str] | None, now: list[str], out: Path) -> None:
    """Refuse to go on with other classes: the class heads have a row for each."""
    if before is not None and before != now:
        raise ValueError(
            f"expected the {len(before)} classes that the training in {out} was begun with ({few(before)}), got {len(now)} "
            f"({few(now)}): begin again with --restart, or give another --out"
        )
