"""Many visitors at once on a page of its own: ``python -m tests.load`` prints what they got and how long they waited.

python -m tests.load --visitors 30 --clicks 20    everybody at once, every answer compared with the one computed alone
python -m tests.load --growth 500                 so many runs one after the other: what grows?
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
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations

import httpx
import numpy as np

from app.engine.engine import Engine
from tests.load.visit import Visit, visit, wrong


@contextmanager
def serving(**environment: str) -> Iterator[str]:
    """A server in a process of its own: its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        variables = os.environ | {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"} | environment
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.load.server", str(port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables,
        )  # fmt: skip
        try:
            if not any("ready" in line for line in server.stdout):  # Gradio may have something to say before
                raise RuntimeError("the server did not start: its own words stand above")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.stdin.close()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()


def held(url: str, collect: bool = False) -> dict[str, int]:
    """What the server holds now."""
    return httpx.get(f"{url}/load/counts", params={"collect": 1} if collect else None, timeout=60, trust_env=False).json()


async def crowd(url: str, visitors: int, clicks: int, pause: float) -> tuple[list[Visit], list[dict[str, int]]]:
    """All visitors at once, and what the server held meanwhile, twice a second."""
    seen: list[dict[str, int]] = []

    async def sample() -> None:
        while True:
            seen.append(await asyncio.to_thread(held, url))
            await asyncio.sleep(0.5)

    sampling = asyncio.create_task(sample())
    visits = await asyncio.gather(*(visit(url, number, clicks, pause=pause) for number in range(visitors)))
    sampling.cancel()
    return list(visits), seen


def report(visits: list[Visit], seen: list[dict[str, int]]) -> dict[str, str]:
    """The figures of `crowd`, by name."""
    last = max(made.waiting.begun + made.waiting.queued for made in visits)
    whiles = [seconds for made in visits for begun, seconds in made.times if begun < last]
    after = [seconds for made in visits for begun, seconds in made.times if begun >= last]
    queued, ran = ([getattr(made.waiting, name) for made in visits] for name in ("queued", "ran"))
    places = [made.waiting.places for made in visits if made.waiting.places]
    return {
        "visitors, look-ups": f"{len(visits)}, {len(whiles) + len(after)}",
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


def together(visitors: int, clicks: int, pause: float) -> int:
    """Everybody at once; the number of answers that are not the visitor's own."""
    with serving() as url:
        before = held(url, collect=True)
        begun = time.monotonic()
        visits, seen = asyncio.run(crowd(url, visitors, clicks, pause))
        wall = time.monotonic() - begun
        after = held(url, collect=True)
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
    same = sum(one.opened.get("detections") == other.opened.get("detections") for one, other in combinations(visits, 2))
    print(f"{'visitors whose answers are not their own':45} {bad}; pairs of photos with the same answer: {same}")
    return bad + same


def growth(runs: int) -> int:
    """So many runs, each with a visitor of its own and one click; how much the server holds on the way."""
    with serving() as url:
        rows = []
        for number in range(runs + 1):
            if number in (0, runs // 10, runs // 2, runs):
                time.sleep(1)
                rows.append((number, held(url, collect=True)))
                print(*rows[-1], file=sys.stderr, flush=True)
            if number < runs:
                made = asyncio.run(visit(url, number, 1, 160))
                if made.error:
                    print(f"run {number}: {made.error}")
                    return 1
    print(f"{'after so many runs':25}" + "".join(f"{number:>8}" for number, _ in rows))
    for name in rows[0][1]:
        print(f"{name:25}" + "".join(f"{row[name]:>8}" for _, row in rows))
    return 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__.split("\n")[0])
    parser.add_argument("--visitors", type=int, default=30)
    parser.add_argument("--clicks", type=int, default=20)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between an answer and the next click")
    parser.add_argument("--growth", type=int, metavar="RUNS", help="so many runs one after the other instead")
    chosen = parser.parse_args()
    return growth(chosen.growth) if chosen.growth else min(1, together(chosen.visitors, chosen.clicks, chosen.pause))


if __name__ == "__main__":
    sys.exit(main())
