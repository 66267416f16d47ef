"""The film's pictures, ledger and boxes are those of the trace."""

import base64
import itertools

import cv2
import numpy as np
import orjson
import plotly.graph_objects as go
import pytest
import torch

from app.run.run import Run
from app.run.state import ViewState
from app.theme import scale_colour
from app.views import film
from app.views.film.frames import RARE, film_of, make_film
from litedetr.cost import full_encoder, gmacs
from tests.app.views.small import small_run
from tests.small_models import KINDS

ALL = pytest.mark.parametrize("kind", KINDS)


def state_at(step="auto", **changes):
    return ViewState(view="film", step=step, threshold=0.0, **changes)


def pixels_of(source: str) -> np.ndarray:
    data = np.frombuffer(base64.b64decode(source.split(",")[1]), np.uint8)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def memories(run: Run) -> list[np.ndarray]:
    return [run.trace.memory(index).numpy() for index in range(-1, len(run.trace.encoder_steps))]


@ALL
def test_every_state_is_drawn_and_can_be_sent(kind):
    run = small_run(kind)
    steps = ["auto", "backbone", "boxes", "no such step", *run.step_names]
    for number, (step, show) in enumerate(itertools.product(steps, ["colour", "change"])):
        chosen = [{}, {"query": 3}, {"point": (0.2, 0.9)}][number % 3]
        state = state_at(step, film=show, lang=["en", "ko"][number % 2], **chosen)
        drawn = film.drawing(run, state)
        for panel in drawn["layout"]["meta"]["panels"]:
            assert {f"xaxis{panel['x'][1:]}", f"yaxis{panel['y'][1:]}"} <= set(drawn["layout"])
        sent = [drawn, film.charts(run, state), film.controls(run, state), film.summary(run, state)]
        orjson.dumps(sent, default=np.ascontiguousarray, option=orjson.OPT_SERIALIZE_NUMPY)
        if number % 5 == 0:
            assert len(film.VIEW.figure(run, state).data) == len(drawn["data"])
            go.Figure(film.charts(run, state)[0])


@ALL
def test_colours_are_three_components_with_one_basis_for_the_whole_film(kind):
    """By a singular value decomposition of all frames, in which every scale of every frame weighs the same."""
    run = small_run(kind)
    ends = np.cumsum([height * width for height, width in run.trace.spatial_shapes])[:-1]
    parts = [part.astype(np.float64) for tokens in memories(run) for part in np.split(tokens, ends)]
    mean = np.mean([part.mean(0) for part in parts], axis=0)
    weighted = np.concatenate([(part - mean) / np.sqrt(len(part) * len(parts)) for part in parts])
    _, spread, basis = np.linalg.svd(weighted, full_matrices=False)
    assert film_of(run).explained == pytest.approx((spread[:3] ** 2).sum() / (spread**2).sum(), rel=1e-3)
    shades = (np.concatenate(memories(run)) - mean) @ basis[:3].T / spread[:3] / 5
    shades *= np.sign(basis[range(3), np.abs(basis[:3]).argmax(1)])
    expected = np.clip(np.round(255 * (0.5 + shades)), 0, 255)
    assert np.abs(film_of(run).colours.reshape(-1, 3) - expected).max() <= 1


@ALL
def test_the_same_run_has_the_same_film(kind):
    run = small_run(kind)
    first, again = make_film(run.trace), make_film(run.trace)
    assert (first.colours == again.colours).all()
    assert film_of(run) is film_of(run)
    assert 0 < first.explained <= 1
    assert 0 <= first.clipped < 0.2


@ALL
def test_change_is_the_tokens_own(kind):
    run = small_run(kind)
    before = None
    for tokens, change in zip(memories(run), film_of(run).change, strict=True):
        expected = (
            np.zeros(len(tokens)) if before is None else np.linalg.norm(tokens - before, axis=1) / np.linalg.norm(before, axis=1)
        )
        np.testing.assert_allclose(change, expected, rtol=1e-4, atol=1e-6)
        before = tokens
    changed = film_of(run).change[film_of(run).change > 0]
    assert (changed > film_of(run).limit).mean() <= 1.5 / RARE + 1 / len(changed)


@ALL
def test_panels_show_the_tokens_of_their_scale(kind):
    run = small_run(kind)
    shapes = list(reversed(run.trace.spatial_shapes))  # S1 first
    starts = np.cumsum([0, *[height * width for height, width in run.trace.spatial_shapes]])[::-1][1:]
    for index, step in enumerate(run.trace.encoder_steps, start=1):
        layout = film.drawing(run, state_at(step.name))["layout"]
        changed = film.drawing(run, state_at(step.name, film="change"))
        changes = {trace["meta"]["scale"]: trace for trace in changed["data"] if "meta" in trace}
        colours = changed["layout"]["coloraxis"]  # one for all panels, with its bar
        assert (colours["cmin"], colours["cmax"]) == (0, film_of(run).limit)
        assert colours["colorbar"]["title"]["text"]
        for place, ((height, width), start) in enumerate(zip(shapes, starts, strict=True)):
            scale = f"S{place + 1}"
            shown = pixels_of(layout["images"][place]["source"])
            factor = shown.shape[0] // height
            assert shown.shape == (height * factor, width * factor, 3)
            expected = film_of(run).colours[index, start : start + height * width].reshape(height, width, 3)
            np.testing.assert_array_equal(shown[factor // 2 :: factor, factor // 2 :: factor], expected)
            expected = film_of(run).change[index, start : start + height * width].reshape(height, width)
            np.testing.assert_allclose(changes[scale]["z"], expected, atol=1e-4)
            assert changes[scale]["coloraxis"] == "coloraxis"
            updated = scale in step.query_scales
            assert (layout["shapes"][place]["line"]["color"] == scale_colour(scale)) == updated
            assert (layout["images"][place]["opacity"] < 1) == (not updated)
            assert ("kept" in layout["annotations"][place]["text"]) == (not updated)


@ALL
def test_ledger(kind):
    run = small_run(kind)
    full = gmacs(full_encoder(run.config), run.trace.geometry.padded)
    last = film.summary(run, state_at("boxes"))
    assert last["gmacs"] == pytest.approx(run.cost.total)
    assert last["full_gmacs"] == pytest.approx(full.total)
    spent = 0.0
    for index, step in enumerate(run.trace.encoder_steps):
        numbers = film.summary(run, state_at(step.name))
        assert numbers["milliseconds"] == run.trace.milliseconds[step.name]
        assert numbers["tokens"] == {"updated": len(step.output), "all": len(run.trace.tokens)}
        assert sorted(numbers["updated"] + numbers["kept"]) == sorted(step.scales)
        assert numbers["gmacs"] == pytest.approx(run.cost.backbone + run.cost.neck + sum(run.cost.steps[: index + 1]))
        assert numbers["full_gmacs"] == pytest.approx(full.backbone + full.neck + sum(full.steps[: index + 1]))
        spent += len(step.output)
        assert numbers["updates"] == {"ours": spent, "full": (index + 1) * len(run.trace.tokens)}
    lines = film.charts(run, state_at())[0]["data"]
    assert lines[1]["y"][-1] == pytest.approx(run.cost.total)
    assert lines[0]["y"][-1] == pytest.approx(full.total)
    if run.config.encoder_schedule.is_full and not run.config.key_aware:
        assert lines[0]["y"] == pytest.approx(lines[1]["y"])
    else:
        assert lines[0]["y"][-1] != pytest.approx(lines[1]["y"][-1])


@ALL
def test_the_decoders_boxes_move_as_the_trace_says(kind):
    run = small_run(kind)
    height, width = run.size
    for layer, step in enumerate(run.trace.decoder_steps, start=1):
        state = state_at(step.name, query=7)
        traces = film.drawing(run, state)["data"]
        queries = film.summary(run, state)["followed"]
        assert 7 in queries
        assert len(traces) == 3 * len(queries)
        for query in queries:
            before, after, way = (trace for trace in traces if trace["meta"]["query"] == query)
            for trace, index in ((before, layer - 1), (after, layer)):
                cx, cy, w, h = run.trace.boxes[index, query].tolist()
                assert max(trace["x"]) - min(trace["x"]) == pytest.approx(w * width, abs=1e-2)
                assert max(trace["y"]) == pytest.approx((cy + h / 2) * height, abs=1e-2)
            centres = run.trace.boxes[: layer + 1, query, :2].numpy() * [width, height]
            np.testing.assert_allclose(np.stack((way["x"], way["y"]), 1), centres, atol=1e-2)
            label = int(run.trace.logits[-1, query].argmax())
            assert after["text"].endswith(f"{float(torch.sigmoid(run.trace.logits[layer - 1, query, label])):.2f}")


def test_rows_and_bars_lead_to_their_step():
    run = small_run("H3L1")
    state = state_at("B1 all")
    rows = film.summary(run, state)["table"]["rows"]
    assert [row["set"]["step"] for row in rows if row["set"]] == ["backbone", *run.step_names]
    bars = film.charts(run, state)[0]["data"][2]
    assert [bar["set"]["step"] for bar in bars["customdata"] if bar] == ["backbone", *run.step_names]
    for row in rows:
        if row["set"]:
            assert film.summary(run, ViewState.from_query({"view": "film", **row["set"]}))["step"] == row["cells"][0]
