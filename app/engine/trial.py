"""The first photo of a model that a visitor named, in a process of its own: so much memory, so much time, none of the page's
secrets, and no GPU. What it cannot do there it does not get to do in the page.

The picture is empty and as large as the model takes them, and is looked at as the page does it, with a trace.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from app.engine.out_of_memory import out_of_memory
from app.engine.time_limit import LONGEST
from litedetr.guests.detector import GuestDetector
from litedetr.guests.folder import import_library, load
from litedetr.processors import granted
from litedetr.weights.errors import ANOTHER, WeightsError, why
from litedetr.weights.folder import KINDS, headers
from litedetr.weights.limits import Limits, numbers

log = logging.getLogger(__name__)

LOADING = 180.0
"""Seconds for the process to begin and to load the model, beside those of a run."""
COPIES = 3
"""Of the weights that there are at a time: the file, the model, and the one that is fast."""
BEAT = 0.5
"""Seconds between two questions whether anybody still waits."""
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH", "LC_", "PYTHON", "XDG_", "OMP_", "MKL_", "LITEDETR_")
"""How the names of environment variables begin that the process gets."""


def try_apart(folder: Path, name: str, limits: Limits, poll: Callable[[], object], seconds: float = LONGEST) -> None:
    """Have a model look at its first picture.

    Args:
        folder: of the model, complete.
        name: of it, for the messages.
        limits: of what it may be; `memory_bytes` is what it may take beyond its weights.
        poll: called every `BEAT` seconds; what it raises ends the trial, and is raised.
        seconds: for the picture.

    Raises:
        WeightsError: it cannot be loaded, cannot look at a picture, or takes too much time or memory for it.
    """
    if not hasattr(os, "fork"):  # Windows has no such limits
        return
    environment = {name: value for name, value in os.environ.items() if name.startswith(_KEPT)}
    order = {"folder": str(folder), "limits": {**asdict(limits), "cache": None}, "seconds": seconds}
    process = subprocess.Popen(
        [sys.executable, "-m", "app.engine.trial"], cwd=Path(__file__).resolve().parents[2], start_new_session=True,
        env=environment | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with process:
        try:
            process.stdin.write(json.dumps(order).encode())
            process.stdin.close()
            answer = _answer(process, poll, seconds + LOADING)
        finally:
            process.kill()
    if answer is None:
        log.warning("A visitor's model took too much time or memory over its first picture, and was ended")
        raise WeightsError(
            f"expected a model that needs at most {limits.memory_bytes / 1e6:,.0f} MB and {seconds:.0f} seconds for a photo, got "
            f"one that needs more in {name}: choose a smaller one{limits.advice}."
        )
    if answer["error"]:
        raise WeightsError(answer["error"].replace(str(folder), name).replace(f" {folder.name}", f" {name}"))


def _answer(process: subprocess.Popen, poll: Callable[[], object], seconds: float) -> dict | None:
    """What the process says; None where it ends without a word, or not in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            process.wait(BEAT)
        except subprocess.TimeoutExpired:
            poll()
        else:
            answer = process.stdout.read()
            return json.loads(answer) if answer else None
    return None


def _look(folder: Path, limits: Limits) -> str:
    """Load a model and show it an empty picture; "", or what is wrong with it."""
    try:
        detector = load(folder, limits=limits).optimize("float32")
        c = detector.config
        size = c.size if isinstance(detector, GuestDetector) else (c.short_side, c.long_side)
        detector.predict(np.zeros((*size, 3), np.uint8), threshold=0.0, trace=True)
    except WeightsError as error:
        if error.__cause__ is not None and out_of_memory(error.__cause__):
            raise MemoryError from error
        return str(error)
    except (ValueError, RuntimeError, IndexError, TypeError, ZeroDivisionError) as error:
        if out_of_memory(error):
            raise
        return f"expected a model that can look at a photo in {folder.name}, got one that cannot: {why(error)}. {ANOTHER}"
    return ""


def _limit(weights: int, memory: int, seconds: float) -> None:
    """Of this process: bytes beyond what it has now, and seconds of each of its processors."""
    import resource  # Windows has none

    os.nice(10)  # the page's visitors come first
    if os.path.exists("/proc/self/statm"):
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + COPIES * weights + memory,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (int(granted() * seconds),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """The process: an order comes as JSON, and ``{"error": …}`` goes."""
    order = json.load(sys.stdin)
    folder, limits = Path(order["folder"]), Limits(**order["limits"])
    try:
        stored = headers(folder / "model.safetensors", folder.name, (*KINDS, "I64"))
        import_library(folder)
        _limit(4 * numbers(stored.values()), limits.memory_bytes, order["seconds"] + LOADING)
        error = _look(folder, limits)
    except WeightsError as refused:
        error = str(refused)
    json.dump({"error": error}, sys.stdout)


if __name__ == "__main__":
    main()
