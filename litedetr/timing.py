"""Timing in turns: every round runs each contestant, so that other work on the machine disturbs all alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Contestant = Callable[[], object]
"""What is timed."""

SHORTEST = 0.2
"""Seconds that a contestant runs in a round at least (in several runs, of which the median counts)."""
MOST_REPEATS = 15


@dataclass(frozen=True)
class Timing:
    """One contestant's milliseconds, a figure a round: the processor's time (of all threads) and the clock on the wall."""

    processor: tuple[float, ...]
    wall: tuple[float, ...]

    def by(self, threads: int) -> tuple[float, ...]:
        """What counts: with one thread the processor's time, which other work disturbs least; with more the clock."""
        return self.processor if threads == 1 else self.wall


@dataclass(frozen=True)
class Ratio:
    """Ours over theirs: the median of the rounds' ratios, the lowest and the highest of them."""

    value: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, ours: Timing, theirs: Timing, threads: int) -> Ratio:
        ratios = [own / other for own, other in zip(ours.by(threads), theirs.by(threads), strict=True)]
        return cls(statistics.median(ratios), min(ratios), max(ratios))


def take_turns(
    runs: Mapping[str, Contestant],
    rounds: int,
    shortest: float = SHORTEST,
    report: Callable[[float], None] = lambda share: None,
) -> dict[str, Timing]:
    """Runs everything `rounds` times, interleaved, after runs of each that do not count (they build, pack and allocate).

    Each round begins with another contestant, so that nobody always runs in the wake of the same one.

    Args:
        shortest: seconds that each runs in a round at least; 0 for one run, and one before the rounds.
        report: told the share that is done, in [0, 1], before each round.
    """
    if rounds < 1:
        raise ValueError(f"expected at least 1 round, got {rounds}")
    report(0.0)
    repeats = {name: _repeats(run, shortest) for name, run in runs.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    names = list(runs)
    for index in range(rounds):
        report((index + 1) / (rounds + 1))
        first = index % max(len(names), 1)
        for name in names[first:] + names[:first]:
            samples = [_once(runs[name]) for _ in range(repeats[name])]
            times[name].append(tuple(statistics.median(column) for column in zip(*samples, strict=True)))
    return {name: Timing(*zip(*pairs, strict=True)) for name, pairs in times.items()}


def _repeats(run: Contestant, shortest: float) -> int:
    """How often to run in one round; warms up with one run, and another where the first was short."""
    processor, _ = _once(run)
    if processor > 1e3 * shortest * MOST_REPEATS:
        return 1
    processor, _ = _once(run)
    return min(max(math.ceil(1e3 * shortest / processor), 1), MOST_REPEATS)


def _once(run: Contestant) -> tuple[float, float]:
    """Milliseconds of one run: processor, wall; at least a microsecond, so that ratios exist."""
    processor, wall = time.process_time(), time.perf_counter()
    run()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return max(1e3 * processor, 1e-3), max(1e3 * wall, 1e-3)
