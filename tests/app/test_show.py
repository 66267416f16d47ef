"""Models of other code bases in the page's figures: runs of them, and what a notebook shows."""

import json

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from app.engine.engine import Engine
from app.figure import FigureError, standalone
from app.run.rail import stops
from app.run.state import ViewState
from app.server.lookups import Lookups
from app.show import show
from app.views import VIEWS, view_of
from litedetr import watch
from tests.guests import zoo
from tests.guests.conftest import guest
from tests.pictures import scene

OTHERS = {name for name, view in VIEWS.items() if view.own}


@pytest.fixture(scope="module", params=["rt_detr_v2", "d_fine"])
def engine(request, tmp_path_factory) -> Engine:
    """One whose own model is a folder of transformers."""
    folder = tmp_path_factory.mktemp(request.param)
    guest(request.param).model.save_pretrained(folder)
    size = {"height": zoo.SIDE, "width": zoo.SIDE}
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": size, "do_normalize": False}))
    return Engine(str(folder))


@pytest.fixture(scope="module")
def run(engine):
    return engine.run(scene(120, 90), "scene.png")


def test_every_view_draws_a_guest_or_says_why_not(engine, run):
    lookups = Lookups(engine.store)
    opened = lookups.open({"run": run.id, "lang": "en"})
    assert opened["model"] in ("RT-DETRv2", "D-FINE")
    for name in VIEWS:
        for step in ("decoder 1", "decoder 2", "backbone", "boxes"):
            for act in ({}, {"pick": [0.4, 0.4]}, {"move": [1, 0]}):
                answer = lookups.look({"run": run.id, "state": f"view={name}&step={step}&t=0", **act})
                assert "error" not in answer, (name, step, act)
                assert set(answer["needs"]) == OTHERS
                go.Figure(json.loads(answer["figure"]))
                if name in OTHERS:
                    assert answer["summary"]["notes"] == [answer["needs"][name]]
                    assert opened["model"] in answer["needs"][name]
                    assert answer["job"] is None
        assert engine.compute(run, ViewState(view=name), lambda share, text: None) is None
        assert run.picture_url not in standalone(run, ViewState(view=name))


def test_the_pages_points_are_the_traces(run):
    step = run.trace.step("decoder 2")
    state = ViewState(view="points", query=3, step="decoder 2", threshold=0.0)
    figure = view_of("points", run).figure(run, state)
    height, width = run.size
    for level, scale in enumerate(step.scales):
        drawn = next(trace for trace in figure.data if trace.name == scale)
        expected = step.locations[3, :, level].reshape(-1, 2).double().numpy() * (width, height)
        order = np.argsort(-step.weights[3, :, level].flatten().numpy(), kind="stable")
        np.testing.assert_allclose(np.stack((drawn.x, drawn.y), 1), expected[order], atol=1e-3)


def test_the_rail_is_the_traces_own_steps(run):
    assert [stop["name"] for stop in stops(run)] == ["backbone", "decoder 1", "decoder 2", "boxes"]
    assert sum(stop["gmacs"] for stop in stops(run)) == pytest.approx(run.cost.total)


def test_the_stages_are_reported(engine):
    events = []
    engine.run(scene(64, 64), "scene.png", report=events.append)
    assert [event["stage"] for event in events if "stage" in event] == ["backbone", "decoder 1", "decoder 2"]


@pytest.mark.parametrize("kind", ["rt_detr", "deformable_detr", "mask2former", "mmcv"])
def test_a_watched_model_is_shown_in_one_line(kind):
    model = guest(kind)
    with watch(model.model) as trace, torch.no_grad():
        model.model(**model.inputs)
    photo = scene(120, 90)
    if trace.decoder_steps:
        figure = show(trace, photo, query=0, step="decoder 1")
        points = trace.step("decoder 1").locations[0]
    else:
        figure = show(trace, photo, point=(0.0, 0.0), step="encoder 1", scale="S3")
        points = trace.step("encoder 1").locations[0]
    width, height = photo.size
    drawn = np.concatenate([np.asarray(each.x) for each in figure.data if each.name in trace.steps[0].scales])
    np.testing.assert_allclose(np.sort(drawn), np.sort(points[..., 0].flatten().numpy() * width), atol=1e-3)
    assert figure.layout.images[0].source.startswith("data:image/jpeg")
    for view in set(VIEWS) - OTHERS - ({"onion"} if not trace.decoder_steps else set()):
        show(trace, photo, view=view)


def test_what_a_guest_found_is_shown(run):
    figure = show(run.detections, scene(120, 90), view="onion", query=2)
    assert len(figure.data) > 3


def test_what_cannot_be_shown_says_so():
    model = guest("rt_detr")
    with watch(model.model) as trace, torch.no_grad():
        model.model(**model.inputs)
    with pytest.raises(FigureError, match="This view needs what only this project's models record"):
        show(trace, scene(64, 64), view="film")
    with pytest.raises(FigureError, match="expected one of the views detections, points"):
        show(trace, scene(64, 64), view="nothing")
    with pytest.raises(FigureError, match="expected 5 names"):
        show(trace, scene(64, 64), names=["one"])
