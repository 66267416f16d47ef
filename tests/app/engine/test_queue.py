import threading

import pytest

from app.engine.jobs import Cancelled
from app.engine.queue import Queue, QueueFull


@pytest.fixture
def queue():
    return Queue(longest=3)


def enter(queue: Queue, turns: list[str], name: str, places: list[int], gate: threading.Event | None = None) -> threading.Thread:
    """Somebody who takes a turn in a thread, in queue when this returns."""
    before = len(queue)

    def wait() -> None:
        with queue.turn(places.append):
            turns.append(name)
            if gate is not None:
                assert gate.wait(20)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while len(queue) == before:
        thread.join(0.001)
    return thread


def test_first_come_first_served_and_everybody_knows_its_place(queue):
    turns, gate, places = [], threading.Event(), {name: [] for name in "abcd"}
    threads = [enter(queue, turns, name, places[name], gate if name == "a" else None) for name in "abcd"]
    with pytest.raises(QueueFull), queue.turn():
        turns.append("nobody")
    gate.set()
    for thread in threads:
        thread.join(20)
    assert turns == list("abcd")
    assert places["a"] == []
    assert places["b"][0] == 1
    assert places["d"][0] == 3
    assert all(seen == sorted(seen, reverse=True) for seen in (places["b"], places["c"], places["d"]))
    assert len(queue) == 0


def test_who_leaves_the_queue_or_fails_makes_room(queue):
    turns, gate = [], threading.Event()
    first = enter(queue, turns, "a", [], gate)

    def leave(before: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled), queue.turn(leave):
        turns.append("nobody")
    assert len(queue) == 1
    gate.set()
    first.join(20)
    with pytest.raises(ZeroDivisionError), queue.turn():
        raise ZeroDivisionError
    with queue.turn():
        turns.append("b")
    assert turns == ["a", "b"]
