"""Detections on disk, picture by picture as they are made, so that a killed measurement goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from litedetr.batch.processes import Processes
from litedetr.batch.resume import begin, whole_lines

Found = dict[int, list[dict[str, Any]]]
"""Picture id -> its detections in COCO's results format."""
ABOUT = "measurement.json"


class ResultsFolder:
    """``FOLDER/detections-<process>.jsonl``, a line per picture, and ``FOLDER/measurement.json``, of what they are.

    Args:
        about: whatever must be the same when a measurement is gone on with, e.g. the model's fingerprint.
    """

    def __init__(self, folder: Path | str, about: dict[str, Any], processes: Processes) -> None:
        self.folder = Path(folder)
        self.known: Found = processes.from_first(lambda: self._open(about))
        self._file = (self.folder / f"detections-{processes.rank}.jsonl").open("a", encoding="utf-8")

    def append(self, found: Found) -> None:
        """Write the detections of some pictures."""
        lines = (json.dumps({"image_id": image, "detections": items}) + "\n" for image, items in found.items())
        self._file.write("".join(lines))
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _open(self, about: dict[str, Any]) -> Found:
        """What an earlier, killed measurement found."""
        self.folder.mkdir(parents=True, exist_ok=True)
        changed = begin(self.folder / ABOUT, about)
        if changed:
            raise ValueError(
                f"expected the measurement that {self.folder} was begun with, got another one: {'; '.join(changed)}. "
                "Give another folder, or delete this one"
            )
        return read_results(self.folder)


def read_results(folder: Path | str) -> Found:
    """What a `ResultsFolder` holds."""
    known: Found = {}
    for path in sorted(Path(folder).glob("detections-*.jsonl")):
        known |= {line["image_id"]: line["detections"] for line in whole_lines(path)}
    return known
