"""Long work pauses for short work, and is not stopped by it."""

import threading

from app.engine import foreground
from app.engine.engine import Engine
from app.engine.foreground import Foreground


def test_long_work_waits_until_short_work_is_done(monkeypatch):
    monkeypatch.setattr(foreground, "LONGEST", 60.0)
    looks, done = Foreground(), []
    looks.wait()  # nothing to wait for
    with looks, looks:
        other = threading.Thread(target=lambda: (looks.wait(), done.append("long")))
        other.start()
        other.join(0.05)
        done.append("short")
    other.join()
    assert done == ["short", "long"]


def test_clicks_without_end_do_not_stop_a_run(engine: Engine):
    with engine.looks:
        assert len(engine.run(engine.example("cat").picture, "cat", keep=False).detections)
