"""A training's figures for TensorBoard, where that is installed (``pip install tensorboard``)."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"


def board(out: Path, step: int) -> Callable[[dict[str, Any]], None]:
    """What writes the lines of a log into ``out``/tensorboard, from `step` on; without TensorBoard what does nothing."""
    if find_spec("tensorboard") is None:
        return _nothing
    from torch.utils.tensorboard import SummaryWriter  # fails without it

    writer = SummaryWriter(out / FOLDER, purge_step=step)

    def write(line: dict[str, Any]) -> None:
        for name, value in scalars(line).items():
            writer.add_scalar(name, value, line["step"])
        writer.flush()

    return write


def scalars(line: dict[str, Any]) -> dict[str, float]:
    """A line of log.jsonl -> figures by name: "train/loss", "val/AP"."""
    train = {name: line[name] for name in line if name.startswith("loss") or name in ("rate", "norm", "photos_per_second")}
    return {f"train/{name}": value for name, value in train.items()} | {
        f"val/{name}": value for name, value in line.get("val", {}).items()
    }


def _nothing(line: dict[str, Any]) -> None:
    pass
