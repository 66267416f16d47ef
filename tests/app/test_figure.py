"""Figures without the page."""

import base64
import io
import json
import re
import shutil

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from app.engine.engine import EXAMPLES
from app.figure import FigureError, look, main, redraw, standalone, write
from app.lessons import lesson
from app.run.state import ViewState
from app.views import VIEWS, points
from tests.app import live
from tests.pictures import scene


@pytest.fixture(scope="module")
def looked(engine):
    return look(scene(330, 210), "view=points&at=0.3,0.4&step=B1+all&t=0", engine=engine)


def traces(figure):
    return [(trace.name, np.asarray(trace.x, dtype=float)) for trace in figure.data if trace.type == "scatter"]


def photo_in(text):
    return Image.open(io.BytesIO(base64.b64decode(re.search(r"data:image/jpeg;base64,([\w+/=]+)", text)[1])))


def test_a_redrawn_figure_is_the_pages_with_the_photo_inside(engine, looked):
    run, state = looked
    figure = redraw(scene(330, 210), state.to_url(), engine=engine)
    for (name, x), (other, expected) in zip(traces(figure), traces(points.VIEW.figure(run, state)), strict=True):
        assert name == other
        np.testing.assert_allclose(x, expected)
    assert photo_in(figure.layout.images[0].source).size == (330, 210)
    assert "lite/run" not in figure.to_json()


def test_an_example_goes_by_its_name(engine):
    run, _ = look("cat", "", engine=engine)
    assert run.size[::-1] == Image.open(EXAMPLES / "cat.jpg").size


@pytest.mark.parametrize("name", sorted(VIEWS))
def test_every_view_stands_alone(looked, name):
    run, _ = looked
    text = standalone(run, ViewState(view=name, threshold=0.0, query=3, lang="ko"))
    assert not re.search(r'(src|href)="', text.split("<script>")[0])
    assert run.picture_url not in text
    drawings = re.search(r"^const drawings = (.*);$", text, re.MULTILINE)[1]
    for drawing in json.loads(drawings.replace("<\\/", "</")):
        go.Figure(drawing)


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_from_the_command_and_from_python(engine, name, tmp_path, monkeypatch):
    """Those that run the model again, too."""
    monkeypatch.setattr("app.figure.Engine", lambda model: engine)
    scene(330, 210).save(tmp_path / "scene.png")
    state = "q=0&box=0.1,0.1,0.5,0.6"
    for kind in ("html", "json"):
        given = [str(tmp_path / "scene.png"), "--view", name, "--state", state, "--out", str(tmp_path / f"figure.{kind}")]
        assert main(given) == 0
    figure = redraw(tmp_path / "scene.png", f"view={name}&{state}")
    written = go.Figure(json.loads((tmp_path / "figure.json").read_text(encoding="utf-8")))
    assert [(trace.type, trace.name) for trace in written.data] == [(trace.type, trace.name) for trace in figure.data]
    run, state = look(tmp_path / "scene.png", f"view={name}&{state}")
    job = VIEWS[name].job(run, state)
    assert job is None or job in run.extras


@pytest.mark.parametrize("link", sorted({stop["link"] for stop in lesson("en")}))
def test_every_state_of_the_lesson(engine, link):
    """On a photo of one's own, where the example has other queries."""
    run, state = look(scene(330, 210), link, engine=engine)
    redraw(scene(330, 210), link, engine=engine)
    assert standalone(run, state).count("<script>") == 2


def test_class_names_cannot_leave_their_place(looked, monkeypatch):
    run, _ = looked
    bad = "</script><script>alert(1)</script>"
    monkeypatch.setattr(type(run.detections), "names", property(lambda found: [bad] * len(found.labels)))
    text = standalone(run, ViewState(threshold=0.0))
    assert text.count("<script>") == 2
    assert "alert(1)</script>" not in text


def test_files(looked, tmp_path):
    run, state = looked
    write(tmp_path / "a.json", run, state)
    figure = go.Figure(json.loads((tmp_path / "a.json").read_text(encoding="utf-8")))
    assert len(figure.data) == len(points.drawing(run, state)["data"])
    with pytest.raises(FigureError, match=r"ending in \.html"):
        write(tmp_path / "a.gif", run, state)


def test_pictures_need_a_browser_and_say_so(looked, tmp_path, monkeypatch):
    run, state = looked
    monkeypatch.setattr("app.figure.shutil.which", lambda name: None)
    with pytest.raises(FigureError, match="install one, or write"):
        write(tmp_path / "a.svg", run, state)


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
def test_a_picture_from_the_command(looked, tmp_path, monkeypatch, capsys):
    scene(330, 210).save(tmp_path / "scene.png")
    out = tmp_path / "figure.svg"
    arguments = [str(tmp_path / "scene.png"), "--view", "points", "--state", "at=0.3,0.4&step=B1 all&t=0", "--out", str(out)]
    assert main([*arguments, "--model", str(live.model_folder())]) == 0
    text = out.read_text(encoding="utf-8")
    assert text.startswith("<svg")
    assert photo_in(text).size == (330, 210)
    run, state = looked
    expected = sum(len(x) for name, x in traces(points.VIEW.figure(run, state)) if re.match(r"S\d", name or ""))
    assert len(re.findall(r'<path class="point', text)) >= expected
    assert main([str(tmp_path / "none.png"), "--out", str(out)]) == 1
    assert "none.png" in capsys.readouterr().err
