"""Checkpoints: all that a run needs to go on exactly where it was; a kill leaves the old one or the new one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

NAME = "checkpoint.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``folder/checkpoint.pt``: a temporary file first, then one atomic rename."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{NAME}.tmp"
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / NAME)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote, on the CPU; None where there is none."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"expected a checkpoint in {path}, it cannot be read ({error}); delete it to start over, or restore a copy"
        ) from error
