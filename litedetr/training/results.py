"""Detections on disk, picture by picture as they are made, so that a killed measurement goes on where it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import nn

from litedetr.training.processes import Processes

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
        note = self.folder / ABOUT
        if note.is_file():
            before = json.loads(note.read_text(encoding="utf-8"))
            changed = [f"{key} {before.get(key)!r}, now {about[key]!r}" for key in about if before.get(key) != about[key]]
            if changed:
                raise ValueError(
                    f"expected the measurement that {self.folder} was begun with, got another one: {'; '.join(changed)}. "
                    "Give another folder, or delete this one"
                )
        else:
            temporary = note.with_suffix(".tmp")
            temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            temporary.replace(note)
        known: Found = {}
        for path in sorted(self.folder.glob("detections-*.jsonl")):
            known |= _whole_lines(path)
        return known


def _whole_lines(path: Path) -> Found:
    """The pictures of a file; a last line cut off by a kill is taken away."""
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        path.write_bytes(whole)
    lines = map(json.loads, whole.splitlines())
    return {line["image_id"]: line["detections"] for line in lines}


def fingerprint(detector: nn.Module) -> str:
    """Sixteen digits that change with the config or any weight."""
    digest = hashlib.sha256(json.dumps(detector.config.to_dict(), sort_keys=True).encode())
    for name, value in detector.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
