"""Many visitors at once on a page of its own: ``python -m tests.load`` prints what they got and how long they waited.

python -m tests.load --visitors 30 --clicks 20    everybody at once, every answer compared with the one computed alone
python -m tests.load --visitors 100 --wave 25     so many at once, the next ones ten seconds later
python -m tests.load --restart 15                 after so many seconds the server is killed, and begins anew
python -m tests.load --growth 1000                so many runs one after the other: what grows?

It exits with 1 where somebody lost a result or got somebody else's, or where memory grows.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import combinations

import httpx
import numpy as np

from app.engine.engine import Engine
from tests.load import photos
from tests.load.visit import Visit, visit, wrong

BETWEEN = 10.0
"""Seconds between two waves."""
GROWTH = 0.03


class Serving:
    """A server in a process of its own, at `url`; use it in a ``with``."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = tempfile.TemporaryDirectory()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.load.server", str(self.port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"GRADIO_TEMP_DIR": self.folder.name, "GRADIO_ANALYTICS_ENABLED": "False"},
        )  # fmt: skip
        if not any("ready" in line for line in self.process.stdout):  # Gradio may have something to say before
            raise RuntimeError("the server did not start: its own words stand above")

    def restart(self) -> None:
        """As after a crash: it says good-bye to nobody, and knows nothing afterwards."""
        self.process.kill()
        self.process.wait()
        self.start()

    def __enter__(self) -> Serving:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.folder.cleanup()


def held(url: str, collect: bool = False) -> dict[str, int]:
    """What the server holds now."""
    answer = httpx.get(f"{url}/load/counts", params={"collect": 1} if collect else None, timeout=60, trust_env=False)
    return answer.raise_for_status().json()


async def crowd(server: Serving, chosen: argparse.Namespace) -> tuple[list[Visit], list[dict[str, int]]]:
    """All visitors, wave after wave, and what the server held meanwhile, twice a second."""
    seen: list[dict[str, int]] = []
    for number in range(chosen.visitors):
        photos.photo(number)  # taken before anybody comes

    async def sample() -> None:
        while True:
            with suppress(httpx.TransportError):
                seen.append(await asyncio.to_thread(held, server.url))
            await asyncio.sleep(0.5)

    async def crash() -> None:
        await asyncio.sleep(chosen.restart)
        await asyncio.to_thread(server.restart)

    helpers = [asyncio.create_task(sample()), *([asyncio.create_task(crash())] if chosen.restart else [])]
    wave = chosen.wave or chosen.visitors
    visits = await asyncio.gather(
        *(
            visit(server.url, number, chosen.clicks, pause=chosen.pause, after=BETWEEN * (number // wave))
            for number in range(chosen.visitors)
        )
    )
    helpers[0].cancel()
    await asyncio.gather(*helpers[1:])
    return list(visits), seen


def report(visits: list[Visit], seen: list[dict[str, int]]) -> dict[str, str]:
    """The figures of `crowd`, by name."""
    last = max(made.waiting.begun + made.waiting.queued for made in visits)
    whiles = [seconds for made in visits for begun, seconds in made.times if begun < last]
    after = [seconds for made in visits for begun, seconds in made.times if begun >= last]
    queued, ran = ([getattr(made.waiting, name) for made in visits] for name in ("queued", "ran"))
    places = [made.waiting.places for made in visits if made.waiting.places]
    lost = sum(bool(made.error) for made in visits)
    return {
        "visitors, look-ups": f"{len(visits)}, {len(whiles) + len(after)}",
        "results lost, made again": f"{lost}, {sum(made.remade for made in visits)}",
        "in the queue, median / longest": f"{np.median(queued):.1f} / {max(queued):.1f} s",
        "a run, median / longest": f"{np.median(ran):.2f} / {max(ran):.2f} s",
        "look-ups while runs queue, median / 95 %": _milliseconds(whiles),
        "look-ups after that, median / 95 %": _milliseconds(after),
        "visitors told their place in the queue": f"{len(places)}, the last one first {max(map(max, places), default=0)}",
        "memory of the server, most": f"{max(one['memory MB'] for one in seen)} MB",
    }


def _milliseconds(seconds: list[float]) -> str:
    if not seconds:
        return "none"
    return f"{1000 * np.median(seconds):.0f} / {1000 * np.percentile(seconds, 95):.0f} ms ({len(seconds)})"


def together(chosen: argparse.Namespace) -> int:
    """Everybody; the number of visitors whose answers are not their own, or are none."""
    with Serving() as server:
        before = held(server.url, collect=True)
        begun = time.monotonic()
        visits, seen = asyncio.run(crowd(server, chosen))
        wall = time.monotonic() - begun
        after = held(server.url, collect=True)
    for name, figure in report(visits, seen).items():
        print(f"{name:45} {figure}")
    print(f"{'all in all':45} {wall:.1f} s, load average {os.getloadavg()[0]:.1f}")
    for name in before:
        print(f"{name + ', before and after':45} {before[name]}, {after[name]}")
    engine = Engine()
    bad = 0
    for made in visits:
        lines = wrong(engine, made)
        bad += bool(lines)
        if lines:
            print(f"photo {made.photo}: {len(lines)} differences: {'; '.join(lines[:3])}")
    own = [made.opened.get("detections") for made in visits if not made.example and not made.error]
    same = sum(one == other for one, other in combinations(own, 2))
    print(f"{'visitors whose answers are not their own':45} {bad}; pairs of own photos with the same answer: {same}")
    return bad + same


def growth(runs: int) -> int:
    """So many runs, each with a visitor of its own and one click; how much the server holds on the way."""
    with Serving() as server:
        url, rows = server.url, []
        for number in range(runs + 1):
            if number in (0, runs // 10, runs // 2, runs):
                time.sleep(1)
                rows.append((number, held(url, collect=True)))
                print(*rows[-1], file=sys.stderr, flush=True)
            if number < runs:
                made = asyncio.run(visit(url, number, 1, 160, kinds=1))
                if made.error:
                    print(f"run {number}: {made.error}")
                    return 1
    print(f"{'after so many runs':25}" + "".join(f"{number:>8}" for number, _ in rows))
    for name in rows[0][1]:
        print(f"{name:25}" + "".join(f"{row[name]:>8}" for _, row in rows))
    without = [row["memory MB"] - row["runs kept MB"] for _, row in rows]  # what is kept for visitors has a limit of its own
    grown = max(without[2:]) / without[1] - 1
    print(f"{'memory beside the kept runs, after the first tenth':50} {grown:+.1%}")
    return int(grown > GROWTH)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__.split("\n")[0])
    parser.add_argument("--visitors", type=int, default=30)
    parser.add_argument("--clicks", type=int, default=20)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between an answer and the next click")
    parser.add_argument("--wave", type=int, metavar="VISITORS", help=f"so many at once, the next ones {BETWEEN:g} s later")
    parser.add_argument("--restart", type=float, metavar="SECONDS", help="kill the server then, and start it again")
    parser.add_argument("--growth", type=int, metavar="RUNS", help="so many runs one after the other instead")
    chosen = parser.parse_args()
    return growth(chosen.growth) if chosen.growth else min(1, together(chosen))


if __name__ == "__main__":
    sys.exit(main())
