"""Files that are no Python: beside the package in a clone, inside it once it is installed."""

from __future__ import annotations

from pathlib import Path


def shipped(folder: str) -> Path:
    """Where ``ext``, ``assets/weights`` or ``assets/examples`` lies."""
    package = Path(__file__).resolve().parent
    beside = package.parent / folder
    return beside if (package.parent / "pyproject.toml").is_file() and beside.is_dir() else package / folder
