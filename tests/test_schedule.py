"""The schedule notation and its steps."""

import pytest

from litedetr import EncoderSchedule
from litedetr.schedule import scale_name


def kinds(text: str) -> list[str]:
    return [step.kind for step in EncoderSchedule.parse(text).steps()]


def test_published_schedules():
    assert kinds("H3L1-(2+1)x3") == ["high", "all"] * 3
    assert kinds("H3L1-(3+1)x2") == ["high", "high", "all"] * 2
    assert kinds("H3L1-(6+1)x1") == ["high"] * 5 + ["all"]


@pytest.mark.parametrize(
    "text", ["H3L1-(2+1)x3", "H2L2-(2+1)x3", "H1L2-(4+1)x2", "H4L1-(1+1)x5", "H4L0-(1+1)x6", "H2L3-(10+1)x12"]
)
def test_round_trip_and_steps(text):
    schedule = EncoderSchedule.parse(text)
    assert str(schedule) == text
    steps = schedule.steps()
    assert len(steps) == schedule.updates * schedule.blocks
    assert [step.index for step in steps] == list(range(len(steps)))
    assert len({step.name for step in steps}) == len(steps)
    for step in steps:
        high = tuple(range(schedule.low, schedule.levels))
        assert step.query_levels == (tuple(range(schedule.levels)) if step.kind == "all" else high)
    for block in range(schedule.blocks):
        own = [step for step in steps if step.block == block]
        assert len(own) == schedule.updates, "high-level scales are updated A times"
        assert [step.kind for step in own].count("all") == 1, "low-level scales are updated once"
        assert own[-1].kind == "all", "at the block's end"


def test_full_encoder():
    schedule = EncoderSchedule.full(levels=4, layers=6)
    assert schedule.is_full
    assert [step.query_levels for step in schedule.steps()] == [(0, 1, 2, 3)] * 6


def test_names():
    assert [scale_name(level, 4) for level in range(4)] == ["S4", "S3", "S2", "S1"]
    assert [step.name for step in EncoderSchedule.parse("H3L1-(2+1)x2").steps()] == ["B1 high", "B1 all", "B2 high", "B2 all"]
    assert [s.name for s in EncoderSchedule.parse("H3L1-(3+1)x1").steps()] == ["B1 high 1", "B1 high 2", "B1 all"]


@pytest.mark.parametrize("text", ["", "H3L1", "H3L1-(2+2)x3", "h3l1-(2+1)x3", "H3L1-(2+1)x3; rm"])
def test_junk_is_refused(text):
    with pytest.raises(ValueError) as error:
        EncoderSchedule.parse(text)
    assert str(error.value) == f"expected a schedule like H3L1-(2+1)x3, got {text!r}: give H, L, A and B as numbers"


def test_impossible_numbers_are_refused():
    with pytest.raises(ValueError) as error:
        EncoderSchedule.parse("H0L4-(2+1)x3")
    assert str(error.value) == (
        "expected a schedule with high >= 1, low >= 0, updates >= 1 and blocks >= 1, got high=0, low=4, updates=2, blocks=3: "
        "write one like H3L1-(2+1)x3"
    )
