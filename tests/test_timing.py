"""Turns and ratios, without a clock."""

import pytest

from litedetr import timing
from litedetr.timing import Ratio, Timing, take_turns


def test_all_take_turns_and_another_begins_each_round(monkeypatch):
    monkeypatch.setattr(timing, "MOST_REPEATS", 1)
    calls = []
    times = take_turns({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=3)
    assert calls[-9:] == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert set(calls[:-9]) == set("abc"), "each warms up"
    assert all(len(times[name].processor) == len(times[name].wall) == 3 for name in "abc")


def test_a_short_run_is_repeated_within_a_round():
    calls = []
    take_turns({"short": lambda: calls.append(0)}, rounds=2)
    assert len(calls) == 2 + 2 * timing.MOST_REPEATS


def test_ratios_are_of_each_round():
    ours = Timing(processor=(1.0, 2.0, 6.0), wall=(4.0, 4.0, 4.0))
    theirs = Timing(processor=(2.0, 8.0, 8.0), wall=(8.0, 8.0, 16.0))
    assert Ratio.of(ours, theirs, threads=1) == Ratio(0.5, 0.25, 0.75)
    assert Ratio.of(ours, theirs, threads=2) == Ratio(0.5, 0.25, 0.5), "by the clock"


def test_no_rounds_is_refused():
    with pytest.raises(ValueError, match="at least 1 round"):
        take_turns({}, rounds=0)
