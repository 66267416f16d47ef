import asyncio
import threading

import pytest

from app.engine.jobs import VISITORS, Cancelled, Orders, follow
from tests.apart import run as run_apart


def test_an_order_ends_with_its_number_and_those_before():
    orders = Orders()
    orders.cancel("visitor1", 3)
    assert [orders.ended("visitor1", ticket) for ticket in (1, 3, 4)] == [True, True, False]
    orders.cancel("visitor1", 2)
    assert orders.ended("visitor1", 3)
    assert not orders.ended("visitor2", 1)


@pytest.mark.parametrize("junk", [None, 3, "", "A B", "x" * 99, ["visitor1"], {"a": 1}])
def test_junk_ends_nothing(junk):
    orders = Orders()
    orders.cancel(junk, 3)
    orders.cancel("visitor1", junk if junk != 3 else None)
    assert not orders.ended("visitor1", 1)
    assert not orders.ended(junk, 1)


def test_only_the_last_visitors_are_remembered():
    orders = Orders()
    for number in range(VISITORS + 1):
        orders.cancel(f"visitor{number:06}", 1)
    assert not orders.ended("visitor000000", 1)
    assert orders.ended(f"visitor{VISITORS:06}", 1)


def told(news) -> list[dict]:
    """All news of an order."""

    async def read():
        return [item async for item in news]

    return run_apart(read())


def test_news_come_in_order_and_the_result_last():
    def act(tell):
        for number in range(3):
            tell({"share": number})
        return {"done": "key"}

    news = told(follow(act, lambda: False, "sorry"))
    assert news[-1] == {"done": "key"}
    assert [item["share"] for item in news[:-1]] == sorted({item["share"] for item in news[:-1]})


def test_who_reads_late_gets_the_newest():
    three, go = threading.Event(), threading.Event()

    def act(tell):
        for number in range(3):
            tell({"share": number})
        three.set()
        assert go.wait(20)
        return {"done": "key"}

    async def read():
        news = follow(act, lambda: False, "sorry")
        first = asyncio.ensure_future(anext(news))
        await asyncio.sleep(0)  # the work has begun
        assert three.wait(20)  # and this reader had no time
        assert await first == {"share": 2}
        go.set()
        return [item async for item in news]

    assert run_apart(read()) == [{"done": "key"}]


def test_a_cancelled_order_stops_at_its_next_word():
    ended = threading.Event()

    def act(tell):
        tell({"share": 0})
        assert ended.wait(20)
        tell({"share": 1})
        raise AssertionError("it went on")

    async def read():
        news = follow(act, ended.is_set, "sorry")
        assert await anext(news) == {"share": 0}
        ended.set()
        return [item async for item in news]

    assert run_apart(read()) == [{"cancelled": True}]
    assert told(follow(act, lambda: True, "sorry")) == [{"cancelled": True}]  # it waited in line when it was cancelled


def test_a_lost_reader_stops_the_work():
    stopped, going = threading.Event(), threading.Event()

    def act(tell):
        try:
            tell({"share": 0})
            assert going.wait(20)
            tell({"share": 1})
        except Cancelled:
            stopped.set()
            raise
        return {}

    async def leave():
        news = follow(act, lambda: False, "sorry")
        await anext(news)
        await news.aclose()
        going.set()
        assert await asyncio.to_thread(stopped.wait, 20)

    run_apart(leave())


def test_waiting_readers_keep_no_thread():
    """As many orders as there could be wait at once in one thread."""
    go = threading.Event()

    def act(tell):
        assert go.wait(20)
        return {"done": "key"}

    async def crowd():
        orders = [asyncio.create_task(anext(follow(act, lambda: False, "sorry"))) for _ in range(100)]
        await asyncio.sleep(0)
        go.set()
        return await asyncio.gather(*orders)

    assert run_apart(crowd()) == [{"done": "key"}] * 100


def test_a_failure_is_a_sentence_without_details():
    def act(tell):
        raise RuntimeError("/secret/path")

    assert told(follow(act, lambda: False, "It failed.")) == [{"error": "It failed."}]
