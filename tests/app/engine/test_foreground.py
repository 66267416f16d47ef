"""Long work pauses for short work, and is not stopped by it."""

import threading

from app.engine import foreground
from app.engine.engine import Engine
from app.engine.foreground import Foreground, Pauses


def test_long_work_waits_until_short_work_is_done(monkeypatch):
    monkeypatch.setattr(foreground, "LONGEST", 60.0)
    looks, done = Foreground(), []
    pauses = Pauses(looks)
    pauses.stage()  # nothing to wait for
    with looks, looks:
        other = threading.Thread(target=lambda: (pauses.part(), done.append("long")))
        other.start()
        other.join(0.05)
        done.append("short")
    other.join()
    assert done == ["short", "long"]


def test_a_stage_pauses_no_longer_than_it_may_in_all_its_parts_together():
    asked = []

    class Busy(Foreground):
        def wait(self, seconds: float) -> float:
            asked.append(round(seconds, 3))
            return 0.02

    pauses = Pauses(Busy())
    for _ in range(2):
        pauses.stage()
        for _ in range(9):
            pauses.part()
    assert asked == [0.05, 0.03, 0.01] * 2


def test_clicks_without_end_do_not_stop_a_run(engine: Engine):
    with engine.looks:
        assert len(engine.run(engine.example("cat").picture, "cat", keep=False).detections)
