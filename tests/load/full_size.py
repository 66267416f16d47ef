"""The page with a model of full size, without a browser: seconds and megabytes of a run, how long it goes on when it is
cancelled, what a look-up of every view takes, and what views compute by themselves after it.

    python -m tests.load.full_size [--preset lite-dino-r50-h3l1-2x3] [--threads 2]

Weights are random, the photo is an example's JPEG, made 800 x 1066 pixels large. Times are of the processor (divide a run's by
the threads that it had for itself), because other work on the machine does not change them, and by the clock.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from itertools import pairwise

import cv2
import torch

from app.engine.engine import EXAMPLES, Engine
from app.engine.store import RunStore
from app.run import progress
from app.run.state import ViewState
from app.server.lookups import Lookups
from app.views import VIEWS
from litedetr import Detector

SIZE = (800, 1066)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.full_size", description=__doc__)
    parser.add_argument("--preset", default="lite-dino-r50-h3l1-2x3")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        Detector.from_preset(given.preset).save_pretrained(folder)
        engine = Engine(folder, RunStore())
        engine.processors = given.threads
        large = cv2.resize(cv2.imread(str(EXAMPLES / "motorcycle.jpg")), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
        photo = cv2.imencode(".jpg", large)[1].tobytes()
        engine.run(photo)  # loads, and fills what is kept
        progress.PULSE = 0.0  # every place where a run can be cancelled
        marks: list[float] = []
        begun = time.perf_counter(), time.process_time()
        run = engine.run(photo, report=lambda event: marks.append(time.process_time()))
        clock, processor = time.perf_counter() - begun[0], time.process_time() - begun[1]
        gap = max(later - earlier for earlier, later in pairwise([*marks, time.process_time()]))
        print(f"{given.preset}, {given.threads} threads: a run {processor:.2f} s of the processor, {clock:.2f} s by the clock")
        print(f"{run.nbytes / 1e6:.1f} MB kept; cancelled, it goes on for at most {gap:.2f} s of the processor")
        lookups = Lookups(engine.store)
        print(f"{'view':12} {'first, ms':>10} {'then, ms':>9} {'clock, ms':>10}")
        for name in VIEWS:
            first, then, clocks = [], [], []
            for step in run.step_names:
                state = ViewState(view=name, step=step, point=(0.4, 0.5), threshold=0.0, box=(0.2, 0.2, 0.6, 0.7)).to_query()
                for times in (first, then, then):
                    begun = time.perf_counter(), time.process_time()
                    answer = lookups.look({"run": run.id, "state": state})
                    times.append(1000 * (time.process_time() - begun[1]))
                    clocks.append(1000 * (time.perf_counter() - begun[0]))
                    assert "error" not in answer
            print(f"{name:12} {max(first):10.0f} {statistics.median(then):9.0f} {statistics.median(clocks):10.0f}")
        for name in (each.name for each in VIEWS.values() if each.begins):
            another = engine.run(photo)
            begun = time.perf_counter(), time.process_time()
            engine.compute(another, ViewState(view=name), report=lambda event: None)
            clock, processor = time.perf_counter() - begun[0], time.process_time() - begun[1]
            print(f"{name}, what it computes by itself: {processor:.2f} s of the processor, {clock:.2f} s by the clock")
        print(f"with what the views keep: {run.nbytes / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
