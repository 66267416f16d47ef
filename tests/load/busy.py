"""How long one photo takes beside other programs: ``python -m tests.load.busy`` prints a table for `docs/speed.md`.

Competing processes count as fast as they can. Beside every number of them predictions with one thread and with all, and runs of
the page, come in turns. A fair share: every thread, ours and theirs, has the same part of the processors.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

from app.engine.engine import EXAMPLES, Engine
from litedetr.processors import granted
from litedetr.timing import take_turns

COMPETING = (0, 1, 2, 4)
PHOTO = EXAMPLES / "motorcycle.jpg"


@contextmanager
def competing(count: int) -> Iterator[None]:
    """So many busy processes."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    time.sleep(0.5)
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def ways() -> dict[str, tuple[int, Callable[[], object]]]:
    """Who takes the photo, with how many threads; the page chooses its own, at most all."""
    engine = Engine()
    plain, photo, every = engine.detector, PHOTO.read_bytes(), granted()

    def predicted(threads: int) -> None:
        torch.set_num_threads(threads)
        plain.predict(photo)

    found = {f"`predict`, threads: {threads}": (threads, partial(predicted, threads)) for threads in sorted({1, every})}
    return found | {"a run of the page": (every, partial(engine.run, photo, keep=False))}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.busy", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds, measured = parser.parse_args().rounds, ways()
    print("| competing processes | " + " | ".join(measured) + " |")
    print("| --- |" + " ---: |" * len(measured))
    idle: dict[str, float] = {}
    for count in COMPETING:
        with competing(count):
            timings = take_turns({name: run for name, (_, run) in measured.items()}, rounds)
        cells = []
        for name, (threads, _) in measured.items():
            took = statistics.median(timings[name].wall)
            fair = max(1.0, (count + threads) / granted()) * idle.setdefault(name, took)
            cells.append(f"{took:.0f} ms" + (f", {took / fair:.2f} of a fair share's" if count else ""))
        print(f"| {count} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
