import threading
import time

import pytest

from app.engine.jobs import Cancelled
from app.engine.queue import AHEAD_OF_ONE, Client, Queue, QueueFull

NOBODY = Client()


@pytest.fixture
def queue():
    return Queue(longest=3)


def enter(
    queue: Queue, turns: list[str], name: str, places: list[int], gate: threading.Event | None = None, client: Client = NOBODY
) -> threading.Thread:
    """Somebody who takes a turn in a thread, in queue when this returns."""
    before = len(queue)

    def wait() -> None:
        with queue.turn(client, places.append):
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

    with pytest.raises(Cancelled), queue.turn(waiting=leave):
        turns.append("nobody")
    assert len(queue) == 1
    gate.set()
    first.join(20)
    with pytest.raises(ZeroDivisionError), queue.turn():
        raise ZeroDivisionError
    with queue.turn():
        turns.append("b")
    assert turns == ["a", "b"]


def test_addresses_take_turns_and_a_visitor_waits_behind_itself(queue):
    queue.longest = 20
    turns, gate = [], threading.Event()
    crowd = [Client("1.1.1.1", "greedy")] * 4 + [Client("1.1.1.1", "modest"), Client("2.2.2.2", "alone")]
    threads = [enter(queue, turns, f"{c.visitor} {n}", [], gate if n == 0 else None, c) for n, c in enumerate(crowd)]
    gate.set()
    for thread in threads:
        thread.join(20)
    assert turns == ["greedy 0", "alone 5", "modest 4", "greedy 1", "greedy 2", "greedy 3"]
    # What somebody got in the last minute counts as well.
    gate.clear()
    again = [Client("3.3.3.3", "first"), Client("1.1.1.1", "greedy"), Client("4.4.4.4", "new")]
    threads = [enter(queue, turns, c.visitor, [], gate if n == 0 else None, c) for n, c in enumerate(again)]
    gate.set()
    for thread in threads:
        thread.join(20)
    assert turns[-3:] == ["first", "new", "greedy"]


def test_a_full_queue_has_room_for_another_address(queue):
    turns, gate = [], threading.Event()
    greedy = [Client("1.1.1.1", f"invented {number}") for number in range(4)]
    threads = [enter(queue, turns, c.visitor, [], gate if n == 0 else None, c) for n, c in enumerate(greedy[:3])]
    lost = []

    def last() -> None:
        try:
            with queue.turn(greedy[3]):
                turns.append("invented 3")
        except QueueFull:
            lost.append("invented 3")

    threads.append(threading.Thread(target=last, daemon=True))
    threads[-1].start()
    while len(queue) < 4:
        threads[-1].join(0.001)
    with pytest.raises(QueueFull), queue.turn(Client("1.1.1.1", "one more")):
        turns.append("one more")

    def other() -> None:
        with queue.turn(Client("2.2.2.2", "other")):
            turns.append("other")

    threads.append(threading.Thread(target=other, daemon=True))
    threads[-1].start()
    threads[3].join(20)
    assert lost == ["invented 3"]
    gate.set()
    for thread in threads:
        thread.join(20)
    assert turns == ["invented 0", "other", "invented 1", "invented 2"]


def test_photos_are_decoded_ahead_and_who_is_not_ready_lets_others_go_first(queue):
    queue.longest = 20
    turns, begun, stuck = [], [], threading.Event()

    def visit(client: Client, wait: bool) -> threading.Thread:
        def decode(poll):
            begun.append(client.visitor)
            while wait and not stuck.wait(0.01):
                poll()

        def act() -> None:
            with queue.turn(client, prepare=decode):
                turns.append(client.visitor)

        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        return thread

    threads = [visit(Client("1.1.1.1", f"slow {number}"), True) for number in range(AHEAD_OF_ONE + 2)]
    while len(begun) < AHEAD_OF_ONE:
        threads[0].join(0.001)
    quick = visit(Client("2.2.2.2", "quick"), False)
    quick.join(20)
    assert turns == ["quick"]
    assert len([name for name in begun if name.startswith("slow")]) == AHEAD_OF_ONE
    stuck.set()
    for thread in threads:
        thread.join(20)
    assert len(turns) == AHEAD_OF_ONE + 3


def test_two_at_once_but_not_beside_somebody_who_must_be_alone():
    queue, has, gates = Queue(at_once=2), [], {name: threading.Event() for name in "abcd"}

    def have(name: str) -> None:
        with queue.turn(alone=name == "c"):
            has.append(name)
            assert gates[name].wait(20)
            has.remove(name)

    threads = {name: threading.Thread(target=have, args=(name,), daemon=True) for name in "abcd"}
    for count, thread in enumerate(threads.values(), start=1):
        thread.start()
        while len(queue) < count:
            thread.join(0.001)
    for leaving, left in (("", "ab"), ("a", "b"), ("b", "c"), ("c", "d"), ("d", "")):
        if leaving:
            gates[leaving].set()
            threads[leaving].join(20)
        until = time.monotonic() + 20
        while sorted(has) != list(left) and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(0.02)
        assert sorted(has) == list(left)
