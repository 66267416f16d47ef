import threading

import pytest

from app.engine.jobs import Cancelled
from app.engine.queue import FullLine, Line


@pytest.fixture
def line():
    return Line(longest=3)


def enter(line: Line, order: list[str], name: str, places: list[int], gate: threading.Event | None = None) -> threading.Thread:
    """Somebody who takes a turn in a thread, in line when this returns."""
    before = len(line)

    def wait() -> None:
        with line.turn(places.append):
            order.append(name)
            if gate is not None:
                assert gate.wait(20)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while len(line) == before:
        thread.join(0.001)
    return thread


def test_first_come_first_served_and_everybody_knows_its_place(line):
    order, gate, places = [], threading.Event(), {name: [] for name in "abcd"}
    threads = [enter(line, order, name, places[name], gate if name == "a" else None) for name in "abcd"]
    with pytest.raises(FullLine), line.turn():
        order.append("nobody")
    gate.set()
    for thread in threads:
        thread.join(20)
    assert order == list("abcd")
    assert places["a"] == []
    assert places["b"][0] == 1
    assert places["d"][0] == 3
    assert all(told == sorted(told, reverse=True) for told in (places["b"], places["c"], places["d"]))
    assert len(line) == 0


def test_who_leaves_the_line_or_fails_makes_room(line):
    order, gate = [], threading.Event()
    first = enter(line, order, "a", [], gate)

    def leave(before: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled), line.turn(leave):
        order.append("nobody")
    assert len(line) == 1
    gate.set()
    first.join(20)
    with pytest.raises(ZeroDivisionError), line.turn():
        raise ZeroDivisionError
    with line.turn():
        order.append("b")
    assert order == ["a", "b"]
