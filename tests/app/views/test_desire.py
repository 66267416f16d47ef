"""The desire map is q . k / sqrt(D) of the trace's own queries and keys, and gives the attention's own weights back."""

import math

import numpy as np
import pytest

from app.run.choice import choose
from app.run.state import ViewState
from app.views import desire
from litedetr.ops import reference
from tests.app.views.padded import padded_run
from tests.app.views.small import small_run
from tests.small_models import KINDS

KEYED = [kind for kind, changes in KINDS.items() if changes.get("key_aware", True)]
PLAIN = [kind for kind in KINDS if kind not in KEYED]
STATES = [{"point": (0.3, 0.7), "step": "auto"}, {"point": (0.9, 0.1), "scale": "S1", "step": "B1 all"}, {"query": 5}]


def run_of(kind):
    return padded_run() if kind == "padded" else small_run(kind)


def state_at(**changes):
    return ViewState(view="desire", threshold=0.0, **changes)


def logit(step, row, head, token) -> float:
    """One query and one key, by hand."""
    query, key = step.query[row, head].tolist(), step.key[token, head].tolist()
    return sum(q * k for q, k in zip(query, key, strict=True)) / math.sqrt(len(query))


def sampled(step, row) -> np.ndarray:
    """(M, L, P) logits of the query's points, from keys sampled by PyTorch."""
    keys = reference.sample(step.key[None], step.spatial_shapes, step.locations[None, [row]])[0, 0]  # (M, L*P, D)
    logits = (keys * step.query[row][:, None]).sum(-1) / keys.shape[-1] ** 0.5
    return logits.view(step.weights.shape[1:]).double().numpy()


@pytest.mark.parametrize("kind", [*KEYED, "padded"])
@pytest.mark.parametrize("changes", STATES)
def test_maps_are_the_logits_of_every_token(kind, changes):
    run = run_of(kind)
    state = state_at(head=4, **changes)
    chosen = choose(run, state)
    maps = {trace["name"]: trace for trace in desire.drawing(run, state)["data"] if trace["type"] == "heatmap"}
    assert set(maps) == {f"map {scale}" for scale in chosen.step.scales}
    first = 0
    for scale, (height, width) in zip(chosen.step.scales, chosen.step.spatial_shapes, strict=True):
        z = maps[f"map {scale}"]["z"]
        assert z.shape == (height, width)
        for place in np.random.default_rng(1).integers(0, height * width, 6):
            if run.trace.padding[first + place]:
                assert np.isnan(z.flat[place])
            else:
                assert z.flat[place] == pytest.approx(logit(chosen.step, chosen.row, 3, first + int(place)), abs=1e-4)
        first += height * width


@pytest.mark.parametrize("kind", KEYED)
def test_a_cell_of_the_map_lies_on_its_token(kind):
    run = run_of(kind)
    state = state_at(point=(0.5, 0.5), step="auto")
    drawn = desire.drawing(run, state)["data"]
    for level, (height, width) in enumerate(run.trace.spatial_shapes):
        scale = choose(run, state).step.scales[level]
        (heat,) = (trace for trace in drawn if trace["name"] == f"map {scale}")
        last = run.to_photo(np.array([(width - 0.5) / width, (height - 0.5) / height]))
        assert heat["x0"] + (width - 1) * heat["dx"] == pytest.approx(last[0])
        assert heat["y0"] + (height - 1) * heat["dy"] == pytest.approx(last[1])


@pytest.mark.parametrize("kind", [*KEYED, "padded"])
@pytest.mark.parametrize("changes", STATES)
def test_softmax_of_the_sampled_logits_is_the_attention(kind, changes):
    run = run_of(kind)
    chosen = choose(run, state_at(**changes))
    found = desire.desire_of(run, chosen)
    np.testing.assert_allclose(found.sampled, sampled(chosen.step, chosen.row), atol=1e-4)
    assert desire.summary(run, state_at(**changes))["error"] < 1e-5


@pytest.mark.parametrize("kind", [*KEYED, "padded"])
@pytest.mark.parametrize("changes", STATES)
def test_what_was_reached_and_beaten(kind, changes):
    run = run_of(kind)
    state = state_at(**changes)
    chosen = choose(run, state)
    numbers, samples = desire.summary(run, state), sampled(chosen.step, chosen.row)
    first = 0
    for level, (height, width) in enumerate(chosen.step.spatial_shapes):
        column = numbers["scales"].index(chosen.step.scales[level])
        tokens = [token for token in range(first, first + height * width) if not run.trace.padding[token]]
        first += height * width
        for head in (0, 7):
            logits = [logit(chosen.step, chosen.row, head, token) for token in tokens]
            mean, best = sum(logits) / len(logits), max(logits)
            locations = chosen.locations[head, level]
            inside = ((locations >= 0) & (locations <= 1)).all(axis=1)
            got = {name: numbers[name][head][column] for name in ("best", "mean", "top", "reached", "beaten")}
            assert got["best"] == pytest.approx(best, abs=1e-4)
            assert got["mean"] == pytest.approx(mean, abs=1e-4)
            if not inside.any():
                assert got["top"] is got["reached"] is got["beaten"] is None
                continue
            top = samples[head, level][inside].max()
            assert got["top"] == pytest.approx(top, abs=1e-4)
            assert got["beaten"] == pytest.approx(np.mean(np.array(logits) < top), abs=1.01 / len(logits))
            if best - mean > 1e-3:
                assert got["reached"] == pytest.approx(min((top - mean) / (best - mean), 1), rel=0.05, abs=1e-2)


def test_reached_is_one_at_the_best_token_and_zero_at_the_mean():
    logits = np.array([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0], [0.0, 1.0, 2.0]])
    best, mean, top, reached, beaten = desire._compare(logits, np.array([6.0, 5.0, -np.inf]))
    assert best.tolist() == [6, 5, 2]
    assert mean.tolist() == [3, 5, 1]
    assert reached[0] == 1
    assert np.isnan(reached[1:]).all()  # all fit equally; no point inside
    assert beaten[:2].tolist() == [pytest.approx(2 / 3), 0]
    assert np.isnan(beaten[2])
    assert desire._compare(logits, np.array([3.0, 5.0, 0.5]))[3].tolist()[::2] == [0, -0.5]


def test_points_are_those_of_the_head_and_the_frame_is_the_best_token():
    run = small_run("H3L1")
    state = state_at(point=(0.6, 0.4), step="B2 all", head=2)
    chosen, drawn = choose(run, state), desire.drawing(run, state)
    named = {panel["x"]: scale for panel, scale in zip(drawn["layout"]["meta"]["panels"], ["S1", "S2", "S3", "S4"], strict=True)}
    for trace in drawn["data"]:
        level = chosen.step.scales.index(named[trace["xaxis"]])
        if trace.get("meta") == named[trace["xaxis"]]:
            expected = run.to_photo(chosen.locations[1, level])
            np.testing.assert_allclose(np.stack((trace["x"], trace["y"]), 1), expected, rtol=1e-4, atol=1e-3)
            np.testing.assert_allclose(trace["customdata"][:, 1], chosen.weights[1, level], rtol=1e-5)
        if trace["name"] == "best":
            (heat,) = (t for t in drawn["data"] if t["type"] == "heatmap" and t["xaxis"] == trace["xaxis"])
            row, column = np.unravel_index(heat["z"].argmax(), heat["z"].shape)
            assert min(trace["x"]) == pytest.approx(column * heat["dx"])
            assert max(trace["y"]) == pytest.approx((row + 1) * heat["dy"])


def test_one_scale_alone_keeps_the_measure_of_colours():
    run = small_run("H2L2")
    state = state_at(point=(0.6, 0.4), step="B1 all", head=1)
    all_, alone = (desire.drawing(run, state.with_(hidden=hidden)) for hidden in ((), ("S1", "S2", "S3")))
    assert len(all_["layout"]["meta"]["panels"]) == 4
    assert len(alone["layout"]["meta"]["panels"]) == 1
    assert all_["layout"]["coloraxis"] == alone["layout"]["coloraxis"]
    (row,) = (row for row in desire.summary(run, state)["table"]["rows"] if row["cells"][0] == "S4")
    assert row["set"] == {"hide": "S1,S2,S3"}


def test_without_a_head_the_strongest_is_shown_and_said():
    run = small_run("H3L1")
    numbers = desire.summary(run, state_at(query=2))
    spread = np.array(numbers["best"], dtype=float) - np.array(numbers["mean"], dtype=float)
    assert numbers["head"] == spread.max(axis=1).argmax() + 1
    assert f"head {numbers['head']}" in numbers["notes"][0]
    assert desire.summary(run, state_at(query=2, head=5))["head"] == 5


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("lang", ["en", "ko"])
def test_plain_attention_has_no_map_and_says_so(kind, lang):
    run = small_run(kind)
    state = state_at(query=1, lang=lang)
    drawn, numbers = desire.drawing(run, state), desire.summary(run, state)
    assert {trace["type"] for trace in drawn["data"]} == {"scatter"}
    assert "coloraxis" not in drawn["layout"]
    points = [trace for trace in drawn["data"] if trace.get("meta") in numbers["scales"]]
    assert len(points) == 4
    assert any({"en": "no key", "ko": "키가 없습니다"}[lang] in note for note in numbers["notes"])
    assert desire.charts(run, state) == []
