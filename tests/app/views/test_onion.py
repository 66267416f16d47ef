"""The skins are the trace's boxes and scores."""

import itertools

import numpy as np
import orjson
import plotly.graph_objects as go
import pytest
import torch

from app.run.state import ViewState
from app.views import onion
from tests.app.views.small import overlap, small_run
from tests.small_models import KINDS

ALL = pytest.mark.parametrize("kind", KINDS)


def state_at(step="auto", **changes):
    return ViewState(view="onion", step=step, threshold=0.0, **changes)


def corners(run, stage, query):
    height, width = run.size
    cx, cy, w, h = run.trace.boxes[stage, query].tolist()
    return [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]


@ALL
def test_every_state_is_drawn_and_can_be_sent(kind):
    run = small_run(kind)
    chosen = itertools.cycle(
        [{}, {"query": 3}, {"query": 9999}, {"point": (0.2, 0.9)}, {"query": 5, "head": 2, "hidden": ("S1",)}]
    )
    for number, step in enumerate(["auto", "backbone", "no such step", *run.step_names]):
        state = state_at(step, lang=["en", "ko"][number % 2], **next(chosen))
        drawn = onion.drawing(run, state)
        sent = [drawn, onion.charts(run, state), onion.summary(run, state)]
        orjson.dumps(sent, default=np.ascontiguousarray, option=orjson.OPT_SERIALIZE_NUMPY)
        if number % 3 == 0:
            assert len(onion.VIEW.figure(run, state).data) == len(drawn["data"])
            go.Figure(onion.charts(run, state)[0])


@ALL
@pytest.mark.parametrize("query", [0, 11])
def test_skins_are_the_traces_boxes_and_scores(kind, query):
    run = small_run(kind)
    trace = run.trace
    stages = onion.summary(run, state_at(query=query))["stages"]
    label = int(trace.logits[-1, query].argmax())
    assert len(stages) == len(trace.boxes)
    for index, skin in enumerate(stages):
        box = corners(run, index, query)
        np.testing.assert_allclose(skin["box"], box, atol=1e-3)
        assert skin["overlap"] == pytest.approx(overlap(box, corners(run, -1, query)), abs=1e-4)
        if index:
            scores = torch.sigmoid(trace.logits[index - 1, query])
            assert skin["score"] == pytest.approx(float(scores[label]))
            others = [(float(score), other) for other, score in enumerate(scores) if other != label]
            assert (skin["other_score"], skin["other"]) == (pytest.approx(max(others)[0]), max(others)[1])
            shift = (trace.boxes[index, query, :2] - trace.boxes[index - 1, query, :2]).numpy() * [run.size[1], run.size[0]]
            assert skin["moved"] == pytest.approx(float(np.hypot(*shift)), abs=1e-3)
    first = stages[0]
    if run.config.family == "dino":
        token = int(trace.selected_tokens[query])
        assert first["score"] == pytest.approx(float(torch.sigmoid(trace.proposal_logits[token, label])))
        height, width = run.size
        cx, cy, w, h = (trace.proposal_boxes[token] * torch.tensor([width, height, width, height])).tolist()
        np.testing.assert_allclose(first["box"], [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], atol=0.1)
    else:
        assert first["score"] is None
    if trace.selected_tokens is None:
        assert first["box"][0] == first["box"][2]


@ALL
def test_what_is_drawn_are_the_skins(kind):
    run = small_run(kind)
    state = state_at("decoder 2", query=4)
    numbers = onion.summary(run, state)
    boxes = {trace["meta"]["stage"]: trace for trace in onion.drawing(run, state)["data"] if isinstance(trace.get("meta"), dict)}
    assert sorted(boxes) == list(range(len(numbers["stages"])))
    for stage, trace in boxes.items():
        x1, y1, x2, y2 = numbers["stages"][stage]["box"]
        assert (min(trace["x"]), max(trace["x"]), min(trace["y"]), max(trace["y"])) == pytest.approx((x1, x2, y1, y2))
    widths = {stage: trace["line"]["width"] for stage, trace in boxes.items()}
    assert max(widths, key=widths.get) == 2 == numbers["stage"]
    fainter = [trace["opacity"] for stage, trace in sorted(boxes.items()) if stage != 2]
    assert fainter == sorted(fainter)
    other, own = onion.charts(run, state)[0]["data"]
    assert own["y"] == [skin["score"] for skin in numbers["stages"]]
    assert other["y"] == [skin["other_score"] for skin in numbers["stages"]]
    for row, stage in zip(numbers["table"]["rows"], range(9), strict=False):
        assert onion.summary(run, state_at(row["set"]["step"], query=4))["stage"] == stage


@ALL
def test_points_are_those_of_the_shown_stage(kind):
    run = small_run(kind)
    for name in [*run.step_names]:
        state, step = state_at(name, query=6), run.trace.step(name)
        row = 6
        if step.kind != "decoder":
            tokens = run.trace.selected_tokens
            row = None if tokens is None or tokens[6] < step.first_query else int(tokens[6]) - step.first_query
        marks = {trace["name"]: trace for trace in onion.drawing(run, state)["data"] if trace["mode"] == "markers"}
        assert bool(marks) == (row is not None) == onion.summary(run, state)["points"]
        for scale, trace in marks.items():
            level = step.scales.index(scale)
            expected = run.to_photo(step.locations[row, :, level].numpy().reshape(-1, 2))
            np.testing.assert_allclose(np.stack((trace["x"], trace["y"]), 1), expected, atol=1e-2)
            np.testing.assert_allclose(trace["customdata"], step.weights[row, :, level].numpy().ravel())


def test_arrow_keys_and_clicks_mean_detections():
    run = small_run("H3L1")
    state = state_at("B1 all", query=int(run.detections.queries[0]))
    moved = onion.move(run, state, 1, 0)
    assert moved.query != state.query
    assert (moved.step, moved.view) == ("B1 all", "onion")
    x1, y1, x2, y2 = run.detections.boxes[0]
    picked = onion.pick(run, state, float(x1 + x2) / 2 / run.size[1], float(y1 + y2) / 2 / run.size[0])
    assert picked.query is not None
    assert picked.view == "onion"
