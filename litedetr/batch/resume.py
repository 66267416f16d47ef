"""Work that goes on where it was killed: whole lines on disk, and a note of what they are of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn


def whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file; a last line that was cut off by a kill is taken away first.

    Raises:
        ValueError: a line that is no JSON object.
    """
    with path.open("rb+") as file:
        whole, place = 0, 0
        for line in file:
            place += len(line)
            whole = place if line.endswith(b"\n") else whole
        file.truncate(whole)
        file.seek(0)
        for number, line in enumerate(file, start=1):
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if not isinstance(value, dict):
                raise ValueError(
                    f"expected a JSON object in line {number} of {path}, got {line[:40]!r}: delete the line or the file"
                )
            yield value


def begin(note: Path, about: dict[str, Any]) -> list[str]:
    """Write down what is begun; where something was begun before, say in what that was another thing ([]: in nothing)."""
    if note.is_file():
        before = json.loads(note.read_text(encoding="utf-8"))
        return [f"{key} {before.get(key)!r}, now {about[key]!r}" for key in about if before.get(key) != about[key]]
    temporary = note.with_name(note.name + ".tmp")
    temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    temporary.replace(note)
    return []


def fingerprint(detector: nn.Module) -> str:
    """Sixteen digits that change with the config or any weight."""
    digest = hashlib.sha256(json.dumps(detector.config.to_dict(), sort_keys=True).encode())
    for name, value in detector.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def file_fingerprint(model: Path) -> str:
    """Sixteen digits that change with an exported model's file, or with the weights beside it."""
    digest = hashlib.sha256()
    for file in (model, model.with_suffix(".bin")):
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
