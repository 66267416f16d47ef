"""Times that are known beforehand, so that a test can say what the rows must make of them."""

import zlib

import pytest

from litedetr.bench import backbones, core, rows
from litedetr.timing import Timing


def told(name: str) -> float:
    """What a contestant of this name takes, in milliseconds of the processor."""
    return 1.0 + zlib.crc32(name.encode()) % 997


@pytest.fixture
def known_times(monkeypatch) -> None:
    """Every contestant runs once, and took `told` milliseconds; twice that on the wall, and in the second round."""

    def take_turns(runs, rounds):
        for run in runs.values():
            run()
        return {
            name: Timing(tuple(factor * told(name) for factor in (1, 2)), tuple(2 * factor * told(name) for factor in (1, 2)))
            for name in runs
        }

    for module in (backbones, core, rows):
        monkeypatch.setattr(module, "take_turns", take_turns)
