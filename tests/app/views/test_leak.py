"""The leak meter's shares are those of the trace, by PyTorch's own bilinear sampling of maps of ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from app.run import bilinear
from app.run.state import ViewState
from app.views import leak
from litedetr.ops import reference
from tests.app.views.padded import padded_run
from tests.app.views.small import small_run
from tests.pictures import scene
from tests.small_models import KINDS, small_detector

ALL = pytest.mark.parametrize("kind", KINDS)


def read_of(step, mask) -> np.ndarray:
    """(Q, M, L, P): what each point reads of a map that is 1 on the cells of `mask` (S,)."""
    heads = step.weights.shape[1]
    maps = mask.float()[None, :, None, None].expand(1, -1, heads, 1)
    return reference.sample(maps, step.spatial_shapes, step.locations[None])[0, ..., 0].view(step.weights.shape).double().numpy()


def lost_of(run, step) -> tuple[np.ndarray, np.ndarray]:
    """(Q, M, L) attention outside the picture, and on padding."""
    weights = step.weights.double().numpy()
    on_level = read_of(step, torch.ones_like(run.trace.padding))
    return (weights * (1 - on_level)).sum(-1), (weights * read_of(step, run.trace.padding)).sum(-1)


@pytest.mark.parametrize(
    ("place", "share"),
    [((0.5, 0.5), 1.0), ((0.0, 0.5), 0.5), ((-1 / 16, 0.5), 0.0), ((0.5, 1.0), 0.5), ((0.0, 0.0), 0.25), ((9.0, 0.5), 0.0)],
)
def test_a_point_on_the_border_is_half_outside(place, share):
    assert bilinear.inside(np.array(place), (4, 8)) == pytest.approx(share)


def test_a_level_of_one_cell_is_left_at_once():
    assert bilinear.inside(np.array([[0.5, 0.5], [0.25, 0.5], [1.5, 0.5]]), (1, 1)).tolist() == [1.0, 0.75, 0.0]


@ALL
@pytest.mark.parametrize("head", [None, 3])
def test_the_table_is_the_share_outside_per_step_and_scale(kind, head):
    run = small_run(kind)
    numbers = leak.summary(run, ViewState(view="leak", head=head))
    rows = []
    for step in run.trace.steps:
        outside, padding = lost_of(run, step)
        outside = outside if head is None else outside[:, head - 1 : head]
        rows.append(outside.mean(axis=(0, 1))[::-1])
        assert padding.max() == 0
    assert numbers["steps"] == list(run.step_names)
    np.testing.assert_allclose(numbers["outside"], rows, atol=1e-5)
    assert numbers["padding"] == [0.0] * len(rows)
    assert np.max(rows) > 1e-3  # random offsets do leave a small picture
    table, _ = leak.charts(run, ViewState(view="leak", head=head))
    np.testing.assert_allclose(table["data"][0]["z"][:, :-1], 100 * np.array(rows), atol=1e-3)
    np.testing.assert_allclose(table["data"][0]["z"][:, -1], 100 * np.sum(rows, axis=1), atol=1e-3)


def test_of_a_heavy_model_the_other_steps_shares_are_a_job(monkeypatch):
    monkeypatch.setattr(leak, "HEAVY", 0.0)
    whole, state = small_run("H3L1"), ViewState(view="leak", step="B1 all", head=2)
    assert leak.job(whole, state) is None  # all its steps are there
    run = replace(whole, detections=small_detector("H3L1").predict(scene(180, 120), 0.0, trace="light"))
    expected, place = leak.summary(whole, state), run.step_names.index("B1 all")
    numbers = leak.summary(run, state)
    assert [bool(np.isfinite(row).all()) for row in numbers["outside"]] == [name == "B1 all" for name in run.step_names]
    assert numbers["outside"][place] == expected["outside"][place]
    assert [text for _, text in numbers["facts"]] == ["…" if i == 1 else text for i, (_, text) in enumerate(expected["facts"])]
    assert leak.charts(run, state)[0]["data"][0]["z"].shape == (len(run.step_names), 5)
    told = []
    run.extras.put(leak.job(run, state), leak.work(run, state, None, lambda *event: told.append(event)))
    assert [text for _, text in told] == list(run.step_names)
    assert leak.summary(run, state) == expected


@pytest.mark.parametrize("key_aware", [True, False])
def test_padding_is_counted_by_itself(key_aware):
    run = padded_run(key_aware)
    numbers = leak.summary(run, ViewState(view="leak", step="B1 all"))
    shares = []
    for step in run.trace.steps:
        outside, padding = lost_of(run, step)
        shares.append(padding.sum(-1).mean())
        np.testing.assert_allclose(leak.leak_of(run, step).padding, padding, atol=1e-5)
        np.testing.assert_allclose(leak.leak_of(run, step).outside, outside, atol=1e-5)
    assert min(shares) > 0.01
    np.testing.assert_allclose(numbers["padding"], shares, atol=1e-5)
    notes = {lang: leak.summary(run, ViewState(view="leak", lang=lang))["notes"] for lang in ("en", "ko")}
    assert any("padded" in note for note in notes["en"])
    assert any("minus infinity" in note for note in notes["en"]) == key_aware


@ALL
def test_the_worst_are_those_that_lose_most_and_lead_to_themselves(kind):
    run = small_run(kind)
    for step in (run.trace.encoder_steps[0], run.trace.decoder_steps[-1]):
        state = ViewState(view="leak", step=step.name)
        numbers = leak.summary(run, state)
        lost = sum(lost_of(run, step)).sum(-1).mean(-1)
        assert len(numbers["worst"]) == min(leak.WORST, np.count_nonzero(lost > 1e-6))
        np.testing.assert_allclose(lost[numbers["worst"]], np.sort(lost)[::-1][: leak.WORST], atol=1e-5)
        for row, line in zip(numbers["worst"], numbers["table"]["rows"], strict=True):
            assert line["cells"][1] == f"{lost[row]:.1%}"
            chosen = leak.choose(run, ViewState.from_query(state.to_query() | line["set"]))
            assert (chosen.step.name, chosen.row) == (step.name, row)


def test_heads_add_up_to_the_step():
    run = small_run("H3L1")
    numbers = leak.summary(run, ViewState(view="leak", step="B1 high"))
    np.testing.assert_allclose(np.mean(numbers["heads"], axis=0), numbers["outside"][0], atol=1e-6)
    _, bars = leak.charts(run, ViewState(view="leak", step="B1 high"))
    drawn = {bar["name"]: bar["x"] for bar in bars["data"]}
    for place, scale in enumerate(numbers["scales"]):
        np.testing.assert_allclose(drawn[scale], 100 * np.array(numbers["heads"])[:, place], rtol=1e-5)


def test_the_map_shows_every_token_of_the_scale_and_no_padding():
    run = padded_run()
    step = run.trace.step("B2 all")
    state = ViewState(view="leak", step="B2 all", scale="S3")
    (heat,) = (trace for trace in leak.drawing(run, state)["data"] if trace["type"] == "heatmap")
    height, width = step.spatial_shapes[1]
    first = step.spatial_shapes[0][0] * step.spatial_shapes[0][1]
    tokens = slice(first, first + height * width)
    lost = 100 * sum(lost_of(run, step)).sum(-1).mean(-1)[tokens]
    lost[run.trace.padding[tokens].numpy()] = np.nan
    np.testing.assert_allclose(heat["z"].ravel(), lost, atol=1e-3)
    places = run.to_photo(step.reference_points[tokens, 1].double().numpy() * 1.0)
    for row, column in ((0, 0), (2, 1)):
        if not np.isnan(heat["z"][row, column]):
            x, y = heat["x0"] + column * heat["dx"], heat["y0"] + row * heat["dy"]
            np.testing.assert_allclose((x, y), places[row * width + column], rtol=1e-4)


def test_points_outside_are_drawn_where_they_are():
    run = small_run("H3L1")
    state = ViewState(view="leak", step="B1 high", hidden=("S4",), head=2)
    drawn = {trace["meta"]: trace for trace in leak.drawing(run, state)["data"] if trace.get("mode") == "markers"}
    step, rows = run.trace.step("B1 high"), leak.summary(run, state)["worst"]
    assert "S4" not in drawn
    height, width = run.size
    for scale in ("S1", "S2", "S3"):
        level = step.scales.index(scale)
        places = run.to_photo(step.locations[rows, 1, level].numpy()).reshape(-1, 2)
        out = (places < 0).any(-1) | (places > (width, height)).any(-1)
        got = np.stack((drawn[scale]["x"], drawn[scale]["y"]), 1) if scale in drawn else np.zeros((0, 2))
        np.testing.assert_allclose(sorted(map(tuple, got)), sorted(map(tuple, places[out])), rtol=1e-4, atol=1e-3)
    assert drawn
