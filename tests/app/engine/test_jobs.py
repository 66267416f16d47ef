import asyncio
import threading

import pytest

from app.engine.jobs import VISITORS, Cancelled, Jobs, follow
from tests.apart import collected
from tests.apart import run as run_apart


def test_a_job_ends_with_its_ticket_and_those_before():
    jobs = Jobs()
    jobs.cancel("visitor1", 3)
    assert [jobs.is_cancelled("visitor1", ticket) for ticket in (1, 3, 4)] == [True, True, False]
    jobs.cancel("visitor1", 2)
    assert jobs.is_cancelled("visitor1", 3)
    assert not jobs.is_cancelled("visitor2", 1)


@pytest.mark.parametrize("junk", [None, 3, "", "A B", "x" * 99, ["visitor1"], {"a": 1}])
def test_junk_ends_nothing(junk):
    jobs = Jobs()
    jobs.cancel(junk, 3)
    jobs.cancel("visitor1", junk if junk != 3 else None)
    assert not jobs.is_cancelled("visitor1", 1)
    assert not jobs.is_cancelled(junk, 1)


def test_only_the_last_visitors_are_remembered():
    jobs = Jobs()
    for number in range(VISITORS + 1):
        jobs.cancel(f"visitor{number:06}", 1)
    assert not jobs.is_cancelled("visitor000000", 1)
    assert jobs.is_cancelled(f"visitor{VISITORS:06}", 1)


def test_events_come_in_order_and_the_result_last():
    def act(report):
        for number in range(3):
            report({"share": number})
        return {"done": "key"}

    events = collected(follow(act, lambda: False, "sorry"))
    assert events[-1] == {"done": "key"}
    assert [event["share"] for event in events[:-1]] == sorted({event["share"] for event in events[:-1]})


def test_who_reads_late_gets_the_newest():
    three, go = threading.Event(), threading.Event()

    def act(report):
        for number in range(3):
            report({"share": number})
        three.set()
        assert go.wait(20)
        return {"done": "key"}

    async def read():
        events = follow(act, lambda: False, "sorry")
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)  # the work has begun
        assert three.wait(20)  # and this reader had no time
        assert await first == {"share": 2}
        go.set()
        return [event async for event in events]

    assert run_apart(read()) == [{"done": "key"}]


def test_a_cancelled_job_stops_at_its_next_event():
    ended = threading.Event()

    def act(report):
        report({"share": 0})
        assert ended.wait(20)
        report({"share": 1})
        raise AssertionError("it went on")

    async def read():
        events = follow(act, ended.is_set, "sorry")
        assert await anext(events) == {"share": 0}
        ended.set()
        return [event async for event in events]

    assert run_apart(read()) == [{"cancelled": True}]
    assert collected(follow(act, lambda: True, "sorry")) == [{"cancelled": True}]  # it waited in the queue when it was cancelled


def test_a_lost_reader_stops_the_work():
    stopped, going = threading.Event(), threading.Event()

    def act(report):
        try:
            report({"share": 0})
            assert going.wait(20)
            report({"share": 1})
        except Cancelled:
            stopped.set()
            raise
        return {}

    async def leave():
        events = follow(act, lambda: False, "sorry")
        await anext(events)
        await events.aclose()
        going.set()
        assert await asyncio.to_thread(stopped.wait, 20)

    run_apart(leave())


def test_waiting_readers_keep_no_thread():
    """As many jobs as there could be wait at once in one thread."""
    go = threading.Event()

    def act(report):
        assert go.wait(20)
        return {"done": "key"}

    async def crowd():
        jobs = [asyncio.create_task(anext(follow(act, lambda: False, "sorry"))) for _ in range(100)]
        await asyncio.sleep(0)
        go.set()
        return await asyncio.gather(*jobs)

    assert run_apart(crowd()) == [{"done": "key"}] * 100


def test_a_failure_is_a_sentence_without_details():
    def act(report):
        raise RuntimeError("/secret/path")

    assert collected(follow(act, lambda: False, "It failed.")) == [{"error": "It failed."}]
