"""What holds for all views of attention: they draw every kind of model in any state, and can be sent."""

import itertools

import numpy as np
import orjson
import plotly.graph_objects as go
import pytest

from app.i18n import texts
from app.run.state import ViewState
from app.theme import NEUTRAL
from app.views import VIEWS as EVERY
from tests.app.views.padded import padded_run
from tests.app.views.small import small_run
from tests.small_models import KINDS

VIEWS = {name: EVERY[name] for name in ("attended", "desire", "lookers", "leak")}
STATES = [
    {},
    {"query": 3},
    {"query": 99_999, "head": 77},
    {"point": (0.01, 0.99), "head": 2},
    {"scale": "S1", "hidden": ("S1", "S2"), "lang": "ko"},
    {"scale": "S3", "hidden": ("S1", "S2", "S4"), "classes": (1, 2), "top": 5000},
    {"scale": "S9", "hidden": ("S1", "S2", "S3", "S4", "S5"), "threshold": 1.0},
]


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("kind", [*KINDS, "padded"])
def test_every_state_is_drawn_and_can_be_sent(kind, name):
    run, view = padded_run() if kind == "padded" else small_run(kind), VIEWS[name]
    encoder, decoder = run.trace.encoder_steps, run.trace.decoder_steps
    steps = ["auto", "no such step", encoder[0].name, encoder[-1].name, decoder[-1].name]
    for number, (step, changes) in enumerate(itertools.product(steps, STATES)):
        if number % 2:  # half of all pairs: every step and every state several times
            continue
        state = ViewState(view=name, step=step, threshold=0.0).with_(**changes)
        drawn, numbers = view.drawing(run, state), view.summary(run, state)
        sent = [drawn, numbers, view.controls(run, state), view.charts(run, state)]
        orjson.dumps(sent, default=np.ascontiguousarray, option=orjson.OPT_SERIALIZE_NUMPY)
        assert numbers["caption"]
        assert all(len(row["cells"]) == len(numbers["table"]["head"]) for row in numbers.get("table", {}).get("rows", []))
        written = [numbers["caption"], *numbers["notes"], *(text for fact in numbers["facts"] for text in fact)]
        assert not any(text.startswith(f"{name}.") for text in written)  # a key without its text
    for figure in (drawn, *view.charts(run, state)):
        assert len(go.Figure(figure).data) == len(figure["data"])
        assert figure["layout"]["font"]["color"] == NEUTRAL  # the page puts its own ink there, light or dark
        assert figure["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"


@pytest.mark.parametrize("name", VIEWS)
def test_what_tables_and_charts_set_is_a_state(name):
    run, view = small_run("H3L1"), VIEWS[name]
    for step in ("B2 all", "decoder 2"):
        state = ViewState(view=name, step=step, threshold=0.0, point=(0.4, 0.3))
        rows = view.summary(run, state).get("table", {}).get("rows", [])
        links = [row["set"] for row in rows if row["set"]]
        for chart in view.charts(run, state):
            for trace in chart["data"]:
                marks = np.array(trace.get("customdata", []), dtype=object).ravel()
                links += [mark["set"] for mark in marks if isinstance(mark, dict)]
        assert links or name == "attended"
        for link in links:
            after = ViewState.from_query(state.to_query() | link)
            for key, value in link.items():
                assert after.to_query().get(key, "") == value
            view.drawing(run, after)


@pytest.mark.parametrize("name", VIEWS)
def test_axes_of_every_panel_count_in_the_photos_pixels(name):
    run = small_run("H3L1")
    drawn = VIEWS[name].drawing(run, ViewState(view=name, threshold=0.0, point=(0.5, 0.5)))
    named = drawn["layout"]["meta"]["panels"]
    height, width = run.size
    for panel in named:
        x, y = (drawn["layout"][f"{axis[0]}axis{axis[1:]}"] for axis in (panel["x"], panel["y"]))
        assert x["range"][0] < 0
        assert x["range"][1] > width
        assert y["range"][1] < 0
        assert y["range"][0] > height
        assert y["scaleanchor"] == panel["x"]
    pictures = [(image["xref"], image["yref"], image["sizex"], image["sizey"]) for image in drawn["layout"]["images"]]
    assert pictures == [(panel["x"], panel["y"], width, height) for panel in named]
    assert {trace.get("xaxis", "x") for trace in drawn["data"]} <= {panel["x"] for panel in named}


def test_both_languages_have_the_same_places_to_fill():
    fields = {}
    for lang in ("en", "ko"):
        own = {key: text for key, text in texts(lang).items() if key.split(".")[0] in {*VIEWS, "step_query"}}
        fields[lang] = {key: sorted(part.split("}")[0] for part in text.split("{")[1:]) for key, text in own.items()}
    assert fields["en"] == fields["ko"]
    same = [key for key in fields["en"] if texts("en")[key] == texts("ko")[key]]
    assert set(same) <= {"attended.short.kda", "step_query.object"}
