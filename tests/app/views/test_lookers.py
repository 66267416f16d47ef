"""Readings are the factors with which the attention op itself reads a cell."""

import numpy as np
import pytest
import torch

from app.run.state import ViewState
from app.views import lookers
from litedetr.ops import reference
from tests.app.views.small import small_run
from tests.small_models import KINDS

ALL = pytest.mark.parametrize("kind", KINDS)


def token_at(run, place, level) -> int:
    """The token whose cell holds a place of the photo, by the distance of cell centres."""
    shapes = run.trace.spatial_shapes
    height, width = shapes[level]
    rows, columns = np.divmod(np.arange(height * width), width)
    centres = run.to_photo(np.stack(((columns + 0.5) / width, (rows + 0.5) / height), axis=1))
    size = run.to_photo(np.array([1 / width, 1 / height]))
    return sum(h * w for h, w in shapes[:level]) + int(np.abs((centres - place) / size).max(axis=1).argmin())


def read(run, step, tokens) -> np.ndarray:
    """(Q,): the attention op's output for a value of 1 at some tokens and 0 elsewhere, as the mean over heads."""
    heads = step.weights.shape[1]
    value = torch.zeros(1, len(step.value), heads, 1)
    value[0, tokens] = 1
    out = reference.deformable_attention(value, step.spatial_shapes, step.locations[None], step.weights[None])
    return out[0].mean(-1).double().numpy()


def state_at(step, **changes):
    return ViewState(**{"view": "lookers", "step": step, "point": (0.37, 0.62), "threshold": 0.0, **changes})


def busy_place(run, step) -> tuple[float, float]:
    """The place of the step's heaviest sample on the second level among those in the picture, in [0, 1] of the photo."""
    places = run.to_photo(step.locations[:, :, 1].numpy()).reshape(-1, 2) / np.array(run.size[::-1])
    weights = np.where(((places > 0) & (places < 1)).all(axis=1), step.weights[:, :, 1].flatten().numpy(), -1)
    return tuple((places[weights.argmax()] + 0.0037).clip(0, 0.999).round(4).tolist())  # off the border of finer cells


@ALL
@pytest.mark.parametrize("hidden", [(), ("S1", "S3")])
def test_readings_are_what_the_attention_reads_of_the_cells(kind, hidden):
    run = small_run(kind)
    for step in (run.trace.encoder_steps[0], run.trace.encoder_steps[-1], run.trace.decoder_steps[-1]):
        point = busy_place(run, step)
        place = np.array(point) * (run.size[1], run.size[0])
        numbers = lookers.summary(run, state_at(step.name, hidden=hidden, point=point))
        levels = [level for level, scale in enumerate(step.scales) if scale not in hidden]
        expected = read(run, step, [token_at(run, place, level) for level in levels])
        best = np.sort(expected)[::-1][: lookers.LISTED]
        best = best[best > 0]
        assert len(best)
        np.testing.assert_allclose(numbers["readings"], best, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(expected[numbers["rows"]], best, rtol=1e-4, atol=1e-7)
        assert np.mean(np.sum(numbers["arriving"], axis=1)) == pytest.approx(expected.sum() / 8, rel=1e-4, abs=1e-7)


def test_readings_of_all_cells_are_all_attention_but_what_leaks():
    run = small_run("H2L2")
    step = run.trace.step("B1 all")
    total = np.zeros(len(step.weights))
    for level, (height, width) in enumerate(step.spatial_shapes):
        for cell in np.ndindex(width, height):
            total += lookers.readings_of(step, {level: cell}).sum(axis=(1, 2))
    np.testing.assert_allclose(total, read(run, step, slice(None)), atol=1e-5)


def test_times_the_average_is_over_all_cells_of_the_scale():
    run = small_run("H3L1")
    step = run.trace.step("B2 all")
    numbers = lookers.summary(run, state_at("B2 all"))
    place = np.array([0.37 * run.size[1], 0.62 * run.size[0]])
    for level, scale in enumerate(step.scales):
        arriving = read(run, step, [token_at(run, place, level)]).sum()
        height, width = step.spatial_shapes[level]
        average = float(step.weights[:, :, level].sum()) / 8 / (height * width)
        assert numbers["usual"][scale] == pytest.approx(arriving / average, rel=1e-4)


@ALL
def test_every_reader_leads_to_itself(kind):
    run = small_run(kind)
    for step in (run.trace.encoder_steps[-1], run.trace.decoder_steps[0]):
        state = state_at(step.name, point=busy_place(run, step))
        numbers = lookers.summary(run, state)
        assert numbers["rows"]
        for row, line in zip(numbers["rows"], numbers["table"]["rows"], strict=True):
            after = ViewState.from_query(state.to_query() | line["set"])
            chosen = lookers.choice.choose(run, after)
            assert (chosen.step.name, chosen.row) == (step.name, row)
            if step.kind == "decoder":
                assert lookers.summary(run, after)["point"] == pytest.approx(numbers["point"], abs=0.1)  # the place stays


def test_readers_are_drawn_as_they_read():
    run = small_run("H3L1")
    for step in ("B2 all", "decoder 2"):
        state = state_at(step, point=busy_place(run, run.trace.step(step)))
        traces = [trace for trace in lookers.drawing(run, state)["data"] if trace["name"] == "reader"]
        numbers = lookers.summary(run, state)
        drawn = {trace["meta"]["row"]: trace for trace in traces}
        assert numbers["rows"]
        assert set(numbers["rows"]) <= set(drawn)
        widths = [drawn[row]["line"]["width"] for row in numbers["rows"]]
        assert widths == sorted(widths, reverse=True)
        for row, reading in zip(numbers["rows"], numbers["readings"], strict=True):
            assert drawn[row]["meta"]["reading"] == pytest.approx(reading)
        cells = [trace["name"] for trace in lookers.drawing(run, state)["data"] if trace["name"].startswith("cell")]
        assert sorted(cells) == ["cell S1", "cell S2", "cell S3", "cell S4"]


def test_the_chosen_object_is_drawn_even_if_it_reads_little():
    run = small_run("H3L1")
    step = run.trace.step("decoder 2")
    point = busy_place(run, step)
    shown = lookers.summary(run, state_at("decoder 2", point=point))
    readers = read(run, step, [token_at(run, np.array(shown["point"]), level) for level in range(4)])
    last = int(np.where(readers > 0, readers, np.inf).argmin())
    assert last not in shown["rows"]
    traces = lookers.drawing(run, state_at("decoder 2", point=point, query=last))["data"]
    (drawn,) = (trace for trace in traces if trace["name"] == "reader" and trace["meta"]["row"] == last)
    assert drawn["line"]["color"] == "#ffffff"


@pytest.mark.parametrize("step", ["auto", "B1 high", "decoder 1"])
def test_a_click_asks_about_the_place_at_the_same_step(step):
    run = small_run("H3L1")
    state = state_at(step, query=2, point=None)
    before = lookers.summary(run, state)
    after = lookers.pick(run, state, 0.8, 0.1)
    assert (after.view, after.query, after.point) == ("lookers", None, (0.8, 0.1))
    numbers = lookers.summary(run, after)
    assert numbers["step"] == before["step"]
    assert numbers["point"] == pytest.approx([0.8 * run.size[1], 0.1 * run.size[0]])


def test_arrows_walk_over_the_cells_of_the_finest_scale_counted():
    run = small_run("H3L1")
    state = state_at("B1 all", hidden=("S4",))
    column, row = lookers.summary(run, state)["cells"]["S3"]
    right = lookers.move(run, state, 1, 0)
    assert lookers.summary(run, right)["cells"]["S3"] == [column + 1, row]
    assert lookers.summary(run, lookers.move(run, right, 0, -100))["cells"]["S3"] == [column + 1, 0]


def test_without_a_point_it_is_the_middle_of_the_chosen_detection_and_says_so():
    run = small_run("H3L1")
    chosen = state_at("auto", point=None, query=4)
    centre = run.trace.boxes[-1, 4, :2].numpy() * (run.size[1], run.size[0])
    numbers = lookers.summary(run, chosen)
    np.testing.assert_allclose(numbers["point"], centre, rtol=1e-5)
    assert "chosen detection" in numbers["notes"][0]
    nothing = lookers.summary(run, state_at("auto", point=None, threshold=1.0))
    assert nothing["point"] == [run.size[1] / 2, run.size[0] / 2]
