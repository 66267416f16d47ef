import itertools

import pytest

from app.run.state import ViewState

STATES = [
    ViewState(),
    ViewState(view="points", query=0, step="decoder 1", head=8, threshold=0.0),
    ViewState(view="points", point=(0.25, 1.0), scale="S3", step="B1 high 2", hidden=("S1", "S4"), lang="ko"),
    ViewState(threshold=0.37, example="cat", head=1),
    ViewState(threshold=1.0, point=(0.0, 0.5), hidden=("S2",), query=149),
    ViewState(view="film", film="change", classes=(0, 17), heat=True, top=4000, tour=3),
    ViewState(view="missed", box=(0.1, 0.25, 0.5, 1.0), plan="H2L2-(2+1)x3", other="owner/name"),
    ViewState(view="mattered", mute=("S4", "h12.S1.4", "h3", "step"), other="full"),
]


@pytest.mark.parametrize("state", STATES)
def test_a_link_gives_the_state_back(state):
    assert ViewState.from_query(state.to_query()) == state
    assert ViewState.from_query("?" + state.to_url()) == state


def test_defaults_are_left_out():
    assert ViewState().to_query() == {}


JUNK = [
    "",
    "x",
    "-1",
    "1e999",
    "nan",
    "9" * 400,
    "S0",
    "S99",
    "<script>",
    "../../etc/passwd",
    "é",
    "٣",
    "1,2,3",
    ",",
    "a,b",
    "\x00",
    " ",
]

NEWER = ["cls", "heat", "n", "box", "mute", "film", "plan", "other", "tour"]


@pytest.mark.parametrize(
    ("key", "junk"), itertools.product(["view", "t", "q", "at", "scale", "step", "head", "hide", "example", "lang", *NEWER], JUNK)
)
def test_junk_counts_as_not_given_or_is_harmless(key, junk):
    state = ViewState.from_query({key: junk})
    assert ViewState.from_query(state.to_query()) == state
    assert state.threshold is None or 0 <= state.threshold <= 1
    assert state.query is None or 0 <= state.query <= 100_000
    assert "<" not in state.to_url()


@pytest.mark.parametrize("junk", [None, 3, [], "%%%", "a=1&a=2", {"view": None, "q": 3, 4: "x", "at": ["0", "1"]}])
def test_other_things_than_a_query_are_the_default(junk):
    assert ViewState.from_query(junk) == ViewState()


def test_numbers_are_kept_in_their_range():
    assert ViewState.from_query({"t": "7"}).threshold == 1.0
    assert ViewState.from_query({"at": "-3,0.5"}).point == (0.0, 0.5)


def test_lists_are_sorted_and_what_is_strange_in_them_is_left_out():
    assert ViewState.from_query({"cls": "7,x,3,7,-1"}).classes == (3, 7)
    assert ViewState.from_query({"mute": "step,h3,h0,S4,h3.S4.2,h3.S4,x"}).mute == ("S4", "h3", "h3.S4.2", "step")


@pytest.mark.parametrize(
    ("text", "box"),
    [("0.5,0.6,0.1,0.2", (0.1, 0.2, 0.5, 0.6)), ("-1,0,2,1", (0, 0, 1, 1)), ("0.1,0.1,0.1,0.9", None), ("0,0,1", None)],
)
def test_a_box_is_two_opposite_corners(text, box):
    assert ViewState.from_query({"box": text}).box == box


@pytest.mark.parametrize("plan", ["H3L1-(2+1)x3x", "H0L1-(2+1)x3", "H3L1-(0+1)x3", "H3L1-(2+1)x333", "H3L1"])
def test_a_strange_schedule_is_none(plan):
    assert ViewState.from_query({"plan": plan}).plan == ""
