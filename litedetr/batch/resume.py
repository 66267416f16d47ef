"""Work that goes on where it was killed: whole lines on disk, and a note of what they are of."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from torch import nn

from litedetr.batch.processes import Processes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


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


@contextmanager
def alone(out: Path, processes: Processes) -> Iterator[None]:
    """Nobody else writes `out` meanwhile; the lock goes with the process, however that ends. Without locks in Windows.

    Raises:
        ValueError: in all processes, where another run is writing it.
    """
    held: list[IO[bytes]] = []
    processes.from_first(lambda: held.append(_locked(out.with_name(f"{out.name}.lock"))))
    try:
        yield
    finally:
        for file in held:
            Path(file.name).unlink(missing_ok=True)
            file.close()


def _locked(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("ab")
        if fcntl is None:
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise ValueError(
                f"expected nobody else to write {path.with_suffix('')}, and another run does: wait for it, or give another --out"
            ) from None
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()  # whoever had it took it away in between


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
