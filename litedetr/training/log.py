"""The log of a training, a line of JSON every so often: written, read, and cut where a run goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


class Meter:
    """Means since the last line of the log."""

    def __init__(self, sums: dict[str, float] | None = None, steps: int = 0, photos: int = 0, seconds: float = 0.0) -> None:
        self.sums, self.steps, self.photos, self.seconds = dict(sums or {}), steps, photos, seconds
        self.canvas, self.rate, self.text = (0, 0), 0.0, ""

    def state(self) -> dict[str, Any]:
        return {"sums": self.sums, "steps": self.steps, "photos": self.photos, "seconds": self.seconds}

    def reset(self) -> None:
        self.sums, self.steps, self.photos, self.seconds = {}, 0, 0, 0.0

    def add(self, values: dict[str, float], photos: int, seconds: float, canvas: tuple[int, int], rate: float) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1 if values else 0
        self.photos, self.seconds = self.photos + photos, self.seconds + seconds
        self.canvas, self.rate = (int(canvas[0]), int(canvas[1])), rate

    def line(self) -> dict[str, Any]:
        means = {name: round(total / self.steps, 5) for name, total in self.sums.items()} if self.steps else {}
        speed = self.photos / max(self.seconds, 1e-9)
        self.text = f", loss {means.get('loss', math.nan):.2f}, {speed:.1f} photos/s at {max(self.canvas)}"
        return {"photos_per_second": round(speed, 3), "canvas": self.canvas, "rate": self.rate, **means}


def cut_log(path: Path, step: int) -> None:
    """Drop the lines written after the checkpoint, so that a resumed run's log has each step once."""
    if path.is_file():
        lines = [line for line in read_log(path) if line["step"] <= step]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def read_log(path: Path | str) -> list[dict[str, Any]]:
    """The lines of a log.jsonl; a last line cut off by a kill is left out."""
    lines = []
    for text in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines
