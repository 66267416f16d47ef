"""Effects are those of real re-runs, and what is drawn and ranked is those effects."""

from functools import cache

import numpy as np
import orjson
import plotly.graph_objects as go
import pytest
import torch
from scipy.stats import spearmanr

from app.run.choice import choose
from app.run.run import Run
from app.run.state import ViewState
from app.views import mattered
from app.views.mattered.muting import Effects, mask, spearman
from litedetr import Detector
from litedetr.muting import contributions, rerun
from tests.app.views.small import small_run
from tests.small_models import small_detector

KINDS = ["H3L1", "H2L2", "full", "one-stage"]
STATES = [ViewState(view="mattered", step="decoder 2", query=3), ViewState(view="mattered", step="B1 all", point=(0.4, 0.6))]


@cache
def computed(kind: str, place: int, mute: tuple[str, ...] = ()) -> tuple[Run, ViewState, Effects]:
    run, state = small_run(kind), STATES[place].with_(mute=mute)
    told: list[float] = []

    def detectors(source: str = "", plain: bool = False) -> Detector:
        assert plain
        return small_detector(kind)

    effects = mattered.work(run, state, detectors, lambda share, text: told.append(share))
    run.extras.put(mattered.job(run, state), effects)
    return run, state, effects


@pytest.mark.parametrize("kind", KINDS)
def test_every_state_is_drawn_and_can_be_sent(kind):
    for place in (0, 1):
        waiting = small_run(kind), STATES[place].with_(mute=("S1",), lang="ko")
        for run, state in (waiting, computed(kind, place)[:2]):
            sent = [view(run, state) for view in (mattered.drawing, mattered.summary, mattered.controls, mattered.charts)]
            orjson.dumps(sent, default=np.ascontiguousarray, option=orjson.OPT_SERIALIZE_NUMPY)
        mattered.VIEW.figure(run, state)
        assert len([go.Figure(chart) for chart in mattered.charts(run, state)]) == 2


def test_a_points_effect_is_what_a_run_without_it_shows():
    run, state, effects = computed("H3L1", 0)
    chosen = choose(run, state)
    label = int(run.trace.logits[-1, 3].argmax())
    place = 37
    head, level, point = np.unravel_index(place, chosen.weights.shape)
    removed = contributions(chosen.step, chosen.row)[head, level, point][None]
    score = float(rerun(small_detector("H3L1"), run.trace, chosen.index, chosen.row, removed).logits[0, 3, label].sigmoid())
    assert effects.points.names[place] == f"h{head + 1}.{chosen.step.scales[level]}.{point + 1}"
    assert effects.points.change[place] == pytest.approx(score - effects.score, abs=1e-6)
    assert effects.points.weight[place] == pytest.approx(float(chosen.weights[head, level, point]))
    assert np.abs(effects.points.change).max() > 0


def test_muting_by_name_is_muting_these_points():
    run, state, effects = computed("H3L1", 0)
    every = effects.points.names
    for name in ("h2", "S4", "step"):
        points = tuple(point for point in every if name == "step" or name in point.split("."))
        _, _, together = computed("H3L1", 0, points)
        assert together.muted.score == pytest.approx(effects.outcomes[name].score, abs=1e-6)
        assert together.muted.box == pytest.approx(effects.outcomes[name].box, abs=1e-2)
        if name != "step":
            change = effects.parts.change[effects.parts.names.index(name)]
            assert together.muted.score - effects.score == pytest.approx(change, abs=1e-6)
    chosen = choose(run, state)
    assert mask(chosen, ("h1.S4.2", "h1.S4.1")).nonzero().tolist() == [[0, 0, 0], [0, 0, 1]]
    assert mask(chosen, ("h99", "S9", "h1.S4.99")).sum() == 0


def test_one_thing_muted_needs_no_further_run():
    run, state, effects = computed("H3L1", 0)
    for name in (effects.points.names[5], "h2", "S4", "step"):
        muting = state.with_(mute=(name,))
        assert mattered.job(run, muting) in run.extras
        after = next(trace for trace in mattered.drawing(run, muting)["data"] if trace.get("line", {}).get("dash") == "dash")
        assert (min(after["x"]), min(after["y"])) == pytest.approx(effects.outcomes[name].box[:2])
        facts = [value for _, value in mattered.summary(run, muting)["facts"]]
        assert any(value.startswith(f"{effects.outcomes[name].score:.3f} (") for value in facts[3:])
    several = state.with_(mute=("S4", "h2"))
    assert mattered.job(run, several) not in run.extras
    assert "Compute" in mattered.summary(run, several)["notes"][0]


def test_an_effect_that_is_drawn_is_as_large_as_its_share():
    run, state, effects = computed("H3L1", 0)
    drawn = {trace["name"]: trace for trace in mattered.drawing(run, state)["data"] if trace.get("meta")}
    largest = np.abs(effects.points.change).max()
    for name, change in zip(effects.points.names, effects.points.change, strict=True):
        head, scale, point = name.split(".")
        marker = drawn[scale]["marker"]
        place = (int(head[1:]) - 1) * 4 + int(point) - 1
        assert marker["size"][place] == pytest.approx(6 + 20 * np.sqrt(abs(change) / largest), rel=1e-4)
        assert marker["symbol"][place].endswith("-open") == (change > 0)


def test_rank_correlation_with_ties():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 5, 40).astype(float), random.integers(0, 5, 40).astype(float)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert spearman(a, np.ones(40)) == 0.0


def test_an_object_is_followed_when_other_tokens_become_queries():
    run, state, effects = computed("H3L1", 1, ("step",))
    assert 0 <= effects.outcomes["step"].overlap <= 1
    assert torch.isfinite(torch.tensor(effects.outcomes["step"].box)).all()
    assert "the best product of IoU" in " ".join(mattered.summary(run, state)["notes"])
