"""A schedule's diagram and numbers are those of its steps and of the cost model."""

import numpy as np
import orjson
import plotly.graph_objects as go
import pytest
import torch

from app.run.state import ViewState
from app.views import schedule
from litedetr import EncoderSchedule
from litedetr.encoder import InterleavedEncoder
from litedetr.muting import layout
from tests.app.views.small import small_run
from tests.small_models import KINDS

PLANS = ["", "H1L3-(3+1)x2", "H3L1-(2+1)x3", "H2L2-(6+1)x1", "H4L0-(1+1)x6", "H2L1-(2+1)x2", "H9L9-(9+1)x9"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_state_is_drawn_and_can_be_sent(kind):
    run = small_run(kind)
    for number, plan in enumerate(PLANS):
        state = ViewState(view="schedule", plan=plan, lang=["en", "ko"][number % 2])
        drawn = [schedule.drawing(run, state), schedule.summary(run, state), schedule.controls(run, state)]
        orjson.dumps([*drawn, schedule.charts(run, state)], default=np.ascontiguousarray, option=orjson.OPT_SERIALIZE_NUMPY)
    schedule.VIEW.figure(run, state)
    for chart in schedule.charts(run, state):
        go.Figure(chart)


@pytest.mark.parametrize("plan", ["H3L1-(2+1)x3", "H2L2-(2+1)x3", "H1L3-(4+1)x1"])
def test_what_is_filled_is_what_is_updated(plan):
    run = small_run("H3L1")
    drawn = schedule.drawing(run, ViewState(plan=plan))
    steps = EncoderSchedule.parse(plan).steps()
    asked = [[f"S{4 - level}" for level in step.query_levels] for step in steps]
    filled = [[] for _ in steps]
    for trace in drawn["data"]:
        for place, colour in zip(trace["x"], trace["marker"]["color"], strict=True):
            if not colour.startswith("rgba"):
                filled[place].append(trace["name"])
    assert filled == asked
    shapes = run.trace.spatial_shapes
    assert schedule.summary(run, ViewState(plan=plan))["updated"] == sum(
        shapes[level][0] * shapes[level][1] for step in steps for level in step.query_levels
    )


def test_the_models_own_schedule_costs_what_the_run_cost():
    run = small_run("H2L2")
    numbers = schedule.summary(run, ViewState())
    assert numbers["plan"] == run.config.schedule
    assert numbers["gmacs"] == pytest.approx(run.cost.encoder)
    assert schedule.summary(run, ViewState(plan="H3L2-(2+1)x3"))["plan"] == run.config.schedule  # of another number of scales


def test_the_papers_figures_stand_beside_the_schedules_that_it_has():
    rows = schedule.summary(small_run("H3L1"), ViewState(plan="H3L1-(2+1)x3"))["published"]
    assert {row["model"]: (row["ap"], row["full_ap"]) for row in rows} == {
        "lite-dino-swin-t-h3l1-2x3": (53.9, 54.1),
        "lite-h-detr-swin-t-h3l1-2x3": (53.0, 53.2),
        "lite-dino-r50-h3l1-2x3": (50.4, 50.7),
        "lite-h-detr-r50-h3l1-2x3": (49.5, 50.0),
        "lite-deformable-detr-r50-h3l1-2x3": (46.7, 46.8),
    }
    assert schedule.summary(small_run("H3L1"), ViewState(plan="H1L3-(2+1)x3"))["published"] == []


def test_sliders_lead_to_whole_schedules_of_the_models_scales():
    high, updates, blocks = schedule.controls(small_run("three scales"), ViewState(plan="H1L2-(2+1)x3"))
    assert high["values"] == ["H1L2-(2+1)x3", "H2L1-(2+1)x3", "H3L0-(2+1)x3"]
    assert updates["values"][4] == "H1L2-(5+1)x3"
    assert blocks["values"][0] == "H1L2-(2+1)x1"
    assert [control["value"] for control in (high, updates, blocks)] == [1, 2, 3]


def test_shares_are_of_as_many_layers():
    run, state = small_run("H3L1"), ViewState(plan="H3L1-(2+1)x3")
    _, shares, *_ = schedule.charts(run, state)
    cells = shares["data"][0]
    assert cells["x"] == ["A1", "A2", "A3", "A6"]
    plans = [cell["set"]["plan"] for cell in cells["customdata"][2]]
    assert plans == ["H3L1-(1+1)x6", "H3L1-(2+1)x3", "H3L1-(3+1)x2", "H3L1-(6+1)x1"]
    assert cells["z"][2][1] == pytest.approx(100 * schedule.summary(run, state)["share"])


def test_the_measured_encoders_are_those_of_the_plan_and_the_full_one():
    run, state = small_run("H3L1"), ViewState(view="schedule", plan="H2L2-(2+1)x2")
    told = []
    result = schedule.work(run, state, None, lambda share, text: told.append(share))
    assert set(result) == {"plan", "full"}
    assert all(value > 0 for value in result.values())
    assert told == sorted(told)
    run.extras.put(schedule.job(run, state), result)
    facts = dict(schedule.summary(run, state)["facts"])
    assert facts["Measured here"] == f"{result['plan']:.1f} ms"
    assert schedule.summary(run, ViewState(plan="H2L2-(2+1)x1"))["milliseconds"] is None


def test_the_tokens_measured_on_are_the_photos():
    run = small_run("H3L1")
    pyramid = layout(run.trace, torch.zeros(run.config.levels, run.config.width))
    assert torch.equal(pyramid.tokens[0], run.trace.tokens)
    encoder = InterleavedEncoder.from_config(run.config).eval()
    with torch.inference_mode():
        assert encoder(pyramid).shape == pyramid.tokens.shape
