import json
from dataclasses import replace

import numpy as np
import pytest

from app.engine.store import RunStore
from app.run.state import ViewState
from app.server.lookups import Lookups
from app.views import VIEWS, points


@pytest.fixture(scope="module")
def lookups(engine, run):
    engine.store.put(run)
    return Lookups(engine.store)


def test_open_tells_everything_about_the_run(lookups, run):
    answer = lookups.open({"run": run.id})
    json.dumps(answer)
    assert len(answer["detections"]) == len(run.detections)
    assert [entry["score"] for entry in answer["detections"]] == run.detections.scores.tolist()  # counted as they are drawn
    assert answer["spent"]["tokens"] == {
        f"S{4 - level}": height * width for level, (height, width) in reversed(list(enumerate(run.trace.spatial_shapes)))
    }
    assert answer["spent"]["gmacs"]["total"] == pytest.approx(run.cost.total)
    stages = answer["spent"]["gmacs"]
    assert stages["backbone"] + stages["encoder"] + stages["decoder"] == pytest.approx(stages["total"])
    whole = [run.trace.milliseconds[name] for name in ("backbone", "neck", "encoder", "selection", "decoder")]
    assert sum(answer["spent"]["milliseconds"].values()) == pytest.approx(sum(whole))


def test_look_answers_a_click(lookups, run):
    answer = lookups.look({"run": run.id, "state": {"t": "1"}, "pick": [0.5, 0.5], "seq": 7})
    assert answer["seq"] == 7
    assert answer["view"] == "points"
    state = ViewState.from_query(answer["state"])
    assert state.point == (0.5, 0.5)
    figure = json.loads(answer["figure"])
    expected = {trace.meta: trace for trace in points.VIEW.figure(run, state).data if trace.meta}
    for trace in figure["data"]:
        if trace.get("meta"):
            np.testing.assert_allclose(trace["x"], expected[trace["meta"]].x, rtol=1e-5)
    assert json.loads(answer["charts"][0])["layout"]["meta"]["card"] == "query"


def test_an_expired_run_is_a_sentence_in_the_visitors_language():
    lookups = Lookups(RunStore())
    for lang, word in (("en", "no longer"), ("ko", "지워졌습니다")):
        answer = lookups.look({"run": "gone", "state": {"lang": lang}, "seq": 1})
        assert word in answer["error"]
        assert answer["expired"]
        assert answer["seq"] == 1


def test_what_look_ups_keep_with_a_run_counts_towards_the_stores_limit(run):
    first, second = (replace(run, id=name) for name in ("first", "second"))
    store = RunStore(limit=2 * first.nbytes + 1000)
    for each in (first, second):
        store.put(each)
    assert "error" not in Lookups(store).look({"run": "second", "state": {"view": "leak"}})
    assert second.extras.nbytes > 1000
    assert "first" not in store
    assert "second" in store


JUNK = [None, 3, "text", [], {}, {"run": 3}, {"run": ["x"]}, {"run": None, "state": 3}, {"run": {"a": 1}, "pick": "x"}]


@pytest.mark.parametrize("request_", JUNK)
def test_junk_is_a_sentence(lookups, request_):
    for ask in (lookups.open, lookups.look):
        assert ask(request_)["error"]


@pytest.mark.parametrize(
    "extra", [{"pick": [1e300, 0]}, {"pick": ["a", 1]}, {"pick": [1]}, {"move": [None, 1]}, {"pick": [float("nan"), 0.5]}]
)
def test_strange_clicks_change_nothing_or_are_kept_in_the_photo(lookups, run, extra):
    answer = lookups.look({"run": run.id, "state": {}, **extra})
    assert "error" not in answer


def test_a_failure_inside_is_a_sentence_without_details(lookups, run, monkeypatch):
    def broken(*_):
        raise RuntimeError("/secret/path")

    monkeypatch.setitem(VIEWS, "points", replace(VIEWS["points"], drawing=broken))
    answer = lookups.look({"run": run.id, "state": {"view": "points"}})
    assert "secret" not in json.dumps(answer)
    assert answer["error"].endswith(".")
