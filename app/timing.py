"""What the server does for a visitor's photo, each by itself: ``python -m app.timing 3000 4000 5`` (height, width, rounds).

Writes one JSON object: name -> milliseconds by the clock, one for each round. `python -m litedetr bench --rows visitor` makes
rows of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from app.engine.engine import Engine, shown_picture
from app.server.lookups import Lookups
from litedetr.bench.stages import noise
from litedetr.timing import take_turns


def parts(engine: Engine, photo: bytes) -> dict[str, Callable[[], object]]:
    """What a run of this JPEG is made of, by name."""
    detector = engine.detector
    opened = engine.photos.open(photo)
    lookups, asked = Lookups(engine.store), {"run": engine.run(photo).id}
    return {
        "decode": lambda: engine.photos.open(photo),
        "resize": lambda: detector.prepare(opened),
        "predict": lambda: detector.predict(opened, threshold=0.0),
        "predict with trace": lambda: detector.predict(opened, threshold=0.0, trace="light", cache=engine.steps),
        "picture (beside the model)": lambda: shown_picture(opened.pixels),
        "answer": lambda: (lookups.open(asked), lookups.look(asked)),
        "run": lambda: engine.run(photo, keep=False),
    }


def main(height: str, width: str, rounds: str) -> None:
    """The command line."""
    engine = Engine()
    engine.photos.start()
    times = take_turns(parts(engine, noise((int(height), int(width)))), int(rounds))
    sys.stdout.write(json.dumps({name: timing.wall for name, timing in times.items()}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
