"""One address that asks for everything at once, with invented sessions, on the running page: others are served as ever."""

import asyncio
import secrets
from collections import Counter

import pytest

from app.engine.jobs import OF_AN_ADDRESS
from app.i18n import say
from app.server import guard
from app.server.uploads import owners, sender
from tests.apart import run as run_apart
from tests.app.faults import PHOTO, until
from tests.load.visitor import Visitor, Waiting

ORDERS = 500
OTHER = "127.0.0.2"

pytestmark = pytest.mark.usefixtures("served_after")


class Crowd(Visitor):
    """Invents a session and a visitor's name for every job, and reads no answer."""

    def __init__(self, url: str):
        super().__init__(url)
        self.names: list[str] = []

    async def orders(self, count: int, file: dict) -> Counter[int]:
        """So many jobs for a photo, half of them as programs send them; how often each status came."""
        number, component = self._events["analyse"]
        few = asyncio.Semaphore(20)

        async def order(place: int) -> int:
            async with few:
                if place % 2:
                    return (await self.http.post("/gradio_api/call/detect", json={"data": [file, 0.5]})).status_code
                self.names.append(secrets.token_hex(12))
                data = [file, {"ticket": 1, "visitor": self.names[-1], "lang": "en"}]
                body = {"data": data, "fn_index": number, "session_hash": secrets.token_hex(6), "trigger_id": component}
                return (await self.http.post("/gradio_api/queue/join", json=body | {"event_data": None})).status_code

        return Counter(await asyncio.gather(*map(order, range(count))))


def test_another_address_is_served_before_500_orders_of_one(engine, url):
    async def visits():
        async with Crowd(url) as crowd, Visitor(url, OTHER) as visitor:
            with engine.queue.turn(alone=True):
                statuses = await crowd.orders(ORDERS, await crowd.upload(PHOTO, "a.jpg"))
                await asyncio.to_thread(until, lambda: len(engine.queue) > engine.queue.longest)
                file = await visitor.upload(PHOTO, "b.jpg")
                waiting = Waiting()
                job = asyncio.create_task(waiting.follow(visitor.analyse(file)))
                await asyncio.to_thread(until, lambda: any(turn.client.address == OTHER for turn in engine.queue._places))
                before = len(engine.queue._turns)
            served = (await job).last
            addresses = [client.address for _, client in engine.queue._turns[before:]]
            for name in crowd.names:
                engine.jobs.cancel(name, 1)
            return statuses, served, addresses, waiting.places

    statuses, served, addresses, places = run_apart(visits())
    assert sum(statuses.values()) == ORDERS
    assert set(statuses) <= {200, 503}  # Gradio's own queue is full for a moment
    assert engine.store.get(served["run"]).source == ""
    assert addresses.index(OTHER) <= 5  # of more than thirty: while its photo was decoded, those that were ready went first
    assert all(place <= 7 for place in places)
    until(lambda: len(engine.queue) == 0)
    assert engine.jobs._under_way.total() == 0


def test_jobs_that_wait_for_something_else_are_bounded_too(engine, url):
    """For a download or for a photo: whatever it is, an address has so many under way."""
    held = [engine.jobs.place(guard.Client("127.0.0.1", str(number))) for number in range(OF_AN_ADDRESS)]
    for place in held:
        place.__enter__()
    try:

        async def visits():
            async with Visitor(url) as one, Visitor(url, OTHER) as other:
                return [(await Waiting().follow(each.analyse(example="cat", lang="ko"))).last for each in (one, other)]

        refused, served = run_apart(visits())
    finally:
        for place in held:
            place.__exit__(None, None, None)
    assert refused["error"] == say("ko", "error.queue")
    assert "run" in served


def test_looks_of_one_address_wait_behind_each_other(engine, url):
    run = engine.run(PHOTO, "a.jpg").id

    async def visits():
        async with Visitor(url) as crowd, Visitor(url, OTHER) as visitor:
            asked = {"run": run, "state": {"view": "points", "t": "0", "at": "0.5,0.5"}}
            looks = [asyncio.create_task(crowd.ask("look", **asked, seq=number)) for number in range(60)]
            done, _ = await asyncio.wait(looks, return_when=asyncio.FIRST_COMPLETED)
            answer = await visitor.ask("look", **asked, seq=99)
            left = sum(not look.done() for look in looks)
            await asyncio.gather(*looks)
            return answer, left

    answer, left = run_apart(visits())
    assert answer["seq"] == 99
    assert "error" not in answer
    assert left > 10


def test_uploads_of_one_address_are_read_a_few_at_a_time(url, monkeypatch):
    """Many begun and not ended keep no other address, and are given up after a while without a byte."""
    monkeypatch.setattr(guard, "SILENCE", 1.0)

    async def visits():
        async with Visitor(url, OTHER) as visitor:
            place = visitor.http.base_url
            begun = [await asyncio.open_connection(place.host, place.port, local_addr=("127.0.0.1", 0)) for _ in range(20)]
            head = (
                f"POST /gradio_api/upload HTTP/1.1\r\nHost: {place.host}\r\nContent-Length: 9999999\r\n"
                "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
                'Content-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\nabc'
            )
            for _, writer in begun:
                writer.write(head.encode())
            before = len(owners.of)
            path = (await visitor.upload(PHOTO, "c.jpg"))["path"]
            under_way = len(owners.of) - before
            ends = await asyncio.gather(*(asyncio.wait_for(reader.read(), 60) for reader, _ in begun[: guard.UPLOADS_AT_ONCE]))
            for _, writer in begun:
                writer.close()
            return path, under_way, ends

    path, under_way, _ = run_apart(visits())
    assert path.endswith("c.jpg")
    assert under_way <= guard.UPLOADS_AT_ONCE + 1
    assert sender.get() == ""
