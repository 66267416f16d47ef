"""Every stop of the lesson opens a state that a link can hold and a view can draw, in both languages."""

import re
from urllib.parse import parse_qsl

import plotly.graph_objects as go
import pytest

from app.engine.engine import EXAMPLE_NAMES, Engine
from app.lessons import lesson
from app.run.state import LANGUAGES, ViewState
from app.server.lookups import Lookups
from app.views import VIEWS, view_of
from litedetr.cost.paper import ROWS

STOPS = lesson("en")
WANTED = {"schedule", "film", "points", "attended", "desire", "versus", "leak", "lookers", "mattered", "missed"}


@pytest.fixture(scope="module")
def runs(engine):
    """The examples that the lesson opens, each run once."""
    return {name: engine.example(name) for name in {ViewState.from_query(stop["link"]).example for stop in STOPS}}


def test_the_lesson_is_short_and_visits_what_it_is_about():
    assert 8 <= len(STOPS) <= 12
    assert {ViewState.from_query(stop["link"]).view for stop in STOPS} >= WANTED
    assert len({stop["link"] for stop in STOPS}) == len(STOPS)


@pytest.mark.parametrize("number", range(1, len(STOPS) + 1))
def test_a_stop_is_a_state_that_its_view_draws(number, runs, engine):
    link = STOPS[number - 1]["link"]
    state = ViewState.from_query(link)
    assert state.to_query() == dict(parse_qsl(link))  # nothing in the link was refused or said in another way
    assert state.example in EXAMPLE_NAMES
    assert state.view in VIEWS
    run = runs[state.example]
    if state.step not in ("auto", "backbone"):
        assert state.step in run.step_names
    figure = go.Figure(view_of(state.view, run).drawing(run, state))
    assert len(figure.data) or len(figure.layout.images)
    answer = Lookups(engine.store).look({"run": run.id, "state": dict(parse_qsl(link)) | {"tour": str(number)}, "seq": 1})
    assert "error" not in answer
    assert answer["state"] == dict(parse_qsl(link)) | {"tour": str(number)}  # the page does not say that the reader moved on
    assert answer["summary"]["caption"] if state.view != "points" else answer["summary"]["step"] == state.step


def test_both_languages_say_everything():
    assert set(LANGUAGES) == {"en", "ko"}
    for english, korean in zip(STOPS, lesson("ko"), strict=True):
        assert set(english) == set(korean) == {"link", "title", "text", "try"}
        assert english["link"] == korean["link"]
        for key in ("title", "text", "try"):
            assert english[key].strip() == english[key] != ""
            assert re.search("[가-힣]{2}", korean[key])
            assert not re.search("[가-힣]", english[key])
        assert 2 <= len(re.findall(r"[.?!](?:\s|$)", english["text"])) <= 4
        assert 2 <= len(re.findall(r"[.?!](?:\s|$)", korean["text"])) <= 5
        for name in re.findall(r"\b[SB]\d\b|\bKDA\b|\d+\.\d", english["text"]):
            assert name in korean["text"]


def test_figures_of_the_paper_are_the_papers():
    text = next(stop["text"] for stop in STOPS if "view=versus" in stop["link"])
    ap = {row.model: row.ap for row in ROWS}
    assert re.findall(r"\d\d\.\d", text) == [str(ap["dino-r50"]), str(ap["lite-dino-r50-h3l1-2x3"])]


# What each stop says of its photo: the run, the stop's state and its view's summary.


def scales(run, state, numbers):
    shapes = run.trace.spatial_shapes
    assert len(shapes) == 4
    sizes = [height * width for height, width in shapes]
    assert sizes[0] / sum(sizes) == pytest.approx(0.75, abs=0.03)
    assert numbers["frame"] == 0


def cheaper(run, state, numbers):
    assert numbers["gmacs"] < numbers["full"]


def waits(run, state, numbers):
    assert numbers["kept"] == ["S4"]
    assert numbers["change"]["S4"] == 0


def has_its_turn(run, state, numbers):
    assert numbers["change"]["S4"] > 0


def points(run, state, numbers):
    assert (numbers["heads"], numbers["points"]) == (8, 8 * 4 * 4)
    assert numbers["error"] < 1e-5


def keys_ignored(run, state, numbers):
    first, second = numbers["heaviest"]
    assert second == pytest.approx(1 / 16)
    assert first > second


def reached(run, state, numbers):
    assert any(share is not None for share in numbers["reached"][numbers["head"] - 1])


def leaks(run, state, numbers):
    assert run.config.key_aware
    assert sum(numbers["outside"][numbers["steps"].index(state.step)]) > 1e-3


def is_read(run, state, numbers):
    assert max(numbers["readings"]) > 0


def mattered(run, state, numbers):
    assert numbers["query"] == run.detections.queries[0]


def trained_alike(run, state, numbers):
    assert not run.config.encoder_schedule.is_full
    assert "was trained for it" in numbers["notes"][0]


def is_missed(run, state, numbers):
    assert run.config.names[state.classes[0]] == "bench"
    assert numbers["verdict"] != "found"
    assert numbers["near_tokens"] is not None


CLAIMS = (
    scales, cheaper, waits, has_its_turn, points, keys_ignored, reached, leaks, is_read, mattered, trained_alike, is_missed,
)  # fmt: skip


@pytest.fixture(scope="module")
def shipped():
    """The page's own model at its own size, as a visitor meets it."""
    return Engine()


@pytest.mark.parametrize(("stop", "claim"), list(zip(STOPS, CLAIMS, strict=True)), ids=[claim.__name__ for claim in CLAIMS])
def test_a_stop_shows_what_it_says(shipped, stop, claim):
    state = ViewState.from_query(stop["link"])
    run = shipped.example(state.example)
    claim(run, state, view_of(state.view, run).summary(run, state))
