"""A small crowd on the page of the tests: `python -m tests.load` brings the large one."""

import asyncio

from tests.apart import run as run_apart
from tests.app import live
from tests.load.photos import differences
from tests.load.visit import NAMES, visit, wrong

VISITORS = 3


def test_everybody_gets_its_own_and_knows_its_place():
    engine = live.engine()

    async def crowd():
        with engine.queue.turn(alone=True):  # somebody has the model until all are there
            visits = [asyncio.create_task(visit(live.address(), number, 4, 160, kinds=1)) for number in range(VISITORS)]
            while len(engine.queue) <= VISITORS:
                assert not any(made.done() for made in visits)
                await asyncio.sleep(0.02)
            await asyncio.sleep(1)  # and until the events have gone out
        return await asyncio.gather(*visits)

    visits = run_apart(crowd())
    first = sorted(made.waiting.places[0] for made in visits)
    assert first[0] == 1
    assert 2 <= first[-1] <= VISITORS  # who reads late gets the newest event only
    assert all(made.waiting.places == sorted(made.waiting.places, reverse=True) for made in visits)
    for made in visits:
        assert wrong(engine, made, 160) == []
        assert len(made.answers) == 4
    assert differences(visits[0].opened, visits[1].opened)
    assert len(engine.queue) == 0


def test_nobody_loses_a_result_where_few_are_kept():
    engine = live.engine()
    store, limit = engine.store, engine.store.limit
    kept = engine.example("cat")
    try:
        store.limit = int(4.6 * kept.nbytes) + kept.layers[1]  # a run is less than a visitor's share, and not all have room

        async def crowd():
            return await asyncio.gather(*(visit(live.address(), number, 12, 160, pause=0.2) for number in range(2 * VISITORS)))

        visits = run_apart(crowd())
    finally:
        store.limit = limit
    assert sum(made.remade for made in visits) > 0
    for made in visits:
        assert wrong(engine, made, 160) == []
        assert {asked["state"]["view"] for asked in made.asked} == set(NAMES)
