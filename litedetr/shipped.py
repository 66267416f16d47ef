"""Files that are no Python: `litedetr/ext` and `litedetr/assets` are links to the clone's folders, and copies once installed."""

from __future__ import annotations

from pathlib import Path


def shipped(folder: str) -> Path:
    """Where ``ext``, ``assets/weights`` or ``assets/examples`` lies: in the package, or beside it where links were left out."""
    package = Path(__file__).resolve().parent
    inside = package / folder
    return inside.resolve() if inside.is_dir() else package.parent / folder
