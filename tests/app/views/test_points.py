"""What is drawn is what the trace holds."""

import numpy as np
import plotly.graph_objects as go
import pytest

from app.drawing.marks import LARGEST
from app.run.choice import choose
from app.run.state import ViewState
from app.theme import scale_colour
from app.views import points
from app.views.points.footprints import footprint, regrid

STEPS = ["B1 high", "B1 all", "B3 all", "decoder 1", "decoder 3"]


def state_at(step, **changes):
    return ViewState(view="points", point=(0.3, 0.4), step=step, threshold=0.0, **changes)


def drawn(figure):
    return {trace.meta: trace for trace in figure.data if isinstance(trace.meta, str)}


@pytest.mark.parametrize("step", STEPS)
def test_points_are_the_traces_locations_in_the_photos_pixels(run, step):
    state = state_at(step)
    chosen = choose(run, state)
    traces = drawn(points.VIEW.figure(run, state))
    assert set(traces) == {"S1", "S2", "S3", "S4"}
    for scale, trace in traces.items():
        level = chosen.step.scales.index(scale)
        head, point, weight = np.asarray(trace.customdata).T
        rows = chosen.step.locations[chosen.row, head.astype(int) - 1, level, point.astype(int) - 1].numpy()
        np.testing.assert_allclose(np.stack((trace.x, trace.y), 1), run.to_photo(rows), rtol=1e-4, atol=1e-2)
        kept = chosen.step.weights[chosen.row, head.astype(int) - 1, level, point.astype(int) - 1].numpy()
        np.testing.assert_allclose(weight, kept, rtol=1e-5)
        assert len({(h, p) for h, p in zip(head, point, strict=True)}) == 32
        assert trace.marker.color == scale_colour(scale)


@pytest.mark.parametrize("step", STEPS)
def test_size_and_shade_follow_the_weight_with_one_measure_for_all_scales(run, step):
    traces = drawn(points.VIEW.figure(run, state_at(step))).values()
    weights = np.concatenate([np.asarray(trace.customdata)[:, 2] for trace in traces])
    sizes = np.concatenate([np.asarray(trace.marker.size) for trace in traces])
    shades = np.concatenate([np.asarray(trace.marker.opacity) for trace in traces])
    order = np.argsort(weights)
    assert (np.diff(sizes[order]) >= -1e-4).all()
    assert (np.diff(shades[order]) >= -1e-6).all()
    assert sizes.max() == pytest.approx(LARGEST)


def test_one_head_and_hidden_scales(run):
    whole = drawn(points.VIEW.figure(run, state_at("B2 all")))
    one = drawn(points.VIEW.figure(run, state_at("B2 all", head=3, hidden=("S1", "S4"))))
    assert set(one) == {"S2", "S3"}
    for scale, trace in one.items():
        details = np.asarray(trace.customdata)
        assert set(details[:, 0]) == {3}
        sizes = dict(zip(map(tuple, np.asarray(whole[scale].customdata)), whole[scale].marker.size, strict=True))
        assert all(sizes[tuple(row)] == size for row, size in zip(details, trace.marker.size, strict=True))


def test_points_outside_the_photo_stay_outside(run):
    state = ViewState(view="points", point=(0.0, 0.0), scale="S1", step="B1 all")
    chosen = choose(run, state)
    places = run.to_photo(chosen.locations)
    outside = ((places < 0) | (places > np.array(run.size[::-1]))).any(-1)
    assert outside.any()
    numbers = points.summary(run, state)
    assert numbers["outside"]["points"] == outside.sum()
    assert numbers["outside"]["weight"] == pytest.approx(chosen.weights[outside].sum() / 8)
    x = np.concatenate([np.asarray(trace.x) for trace in drawn(points.VIEW.figure(run, state)).values()])
    assert x.min() == pytest.approx(places[..., 0].min(), abs=1e-2)
    assert x.min() < 0


@pytest.mark.parametrize("step", STEPS)
def test_attention_sums_to_one_and_the_output_is_rebuilt(run, step):
    numbers = points.summary(run, state_at(step))
    chosen = choose(run, state_at(step))
    np.testing.assert_allclose(numbers["sums"], 1.0, atol=1e-5)
    assert sum(numbers["mean"]) == pytest.approx(1.0, abs=1e-5)
    assert numbers["scales"] == ["S1", "S2", "S3", "S4"]
    expected = chosen.step.weights[chosen.row].sum(-1).flip(-1).numpy()  # levels run from the finest, S4
    np.testing.assert_allclose(numbers["shares"], expected, atol=1e-6)
    assert numbers["error"] < 1e-5


def test_the_cross_is_at_the_reference_point(run):
    figure = points.VIEW.figure(run, state_at("decoder 2"))
    crosses = [trace for trace in figure.data if trace.name == "reference"]
    query = choose(run, state_at("decoder 2")).row
    expected = run.to_photo(run.trace.step("decoder 2").reference_points[query, 0, :2].numpy())
    for cross in crosses:
        np.testing.assert_allclose([cross.x[0], cross.y[0]], expected, rtol=1e-5)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_an_objects_box_is_the_one_it_asked_with(run, layer):
    chosen = choose(run, state_at(f"decoder {layer}"))
    cx, cy, width, height = run.trace.boxes[layer - 1][chosen.row].numpy() * np.array([330, 210, 330, 210])
    expected = [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]
    np.testing.assert_allclose(chosen.box, expected, rtol=1e-4, atol=1e-2)
    # The reference point goes through the padded input's valid ratio, which is whole cells of the finest scale.
    np.testing.assert_allclose(chosen.reference, (cx, cy), atol=8)


def test_bars_are_the_shares(run):
    state = state_at("B1 all", hidden=("S2",))
    numbers = points.summary(run, state)
    figure = go.Figure(points.charts(run, state)[0])
    assert [bar.name for bar in figure.data] == numbers["scales"]
    for place, bar in enumerate(figure.data):
        expected = [numbers["mean"][place], *(row[place] for row in numbers["shares"])]
        np.testing.assert_allclose(bar.x, expected)
    assert all(note.text == "Σ 1.000" for note in figure.layout.annotations)
    assert len(figure.layout.annotations) == 9


def bilinear_cells(points, weights, shape):
    """The plain way: what each cell of a level gets."""
    height, width = shape
    cells = np.zeros(shape)
    for (x, y), weight in zip(points, weights, strict=True):
        for row in range(height):
            for column in range(width):
                across, down = 1 - abs(x * width - 0.5 - column), 1 - abs(y * height - 0.5 - row)
                cells[row, column] += weight * max(across, 0) * max(down, 0)
    return cells


@pytest.mark.parametrize("changes", [{}, {"head": 3}, {"hidden": ("S1", "S3")}])
def test_footprints_sum_to_one_with_what_is_outside(run, changes):
    state = ViewState(view="points", point=(0.0, 0.02), step="B1 all", heat=True, **changes)
    chosen = choose(run, state)
    found = footprint(chosen, state)
    heads = slice(None) if state.head is None else slice(state.head - 1, state.head)
    for scale, share in found.inside.items():
        level = chosen.step.scales.index(scale)
        places = chosen.locations[heads, level].reshape(-1, 2)
        weights = chosen.weights[heads, level].ravel() / len(chosen.weights[heads])
        cells = bilinear_cells(places, weights, run.trace.spatial_shapes[level])
        assert share == pytest.approx(cells.sum(), abs=1e-6)
    assert found.grid.sum() == pytest.approx(sum(found.inside.values()))
    assert found.total == pytest.approx(1.0, abs=1e-5)
    assert found.outside > 0.001
    assert bool(found.hidden) == bool(state.hidden)
    figure = points.VIEW.figure(run, state)
    heat = next(trace for trace in figure.data if trace.type == "heatmap")
    np.testing.assert_allclose(heat.z, 100 * found.grid, rtol=1e-5, atol=1e-6)
    words = dict(points.summary(run, state)["facts"])
    inside = sum(found.inside.values())
    assert words["On the picture + outside = Σ"] == f"{inside:.3f} + {found.outside:.3f} = {inside + found.outside:.3f}"


def test_a_footprint_lies_where_its_points_read(run):
    state = ViewState(view="points", point=(0.6, 0.5), step="B1 all", heat=True, hidden=("S1", "S2", "S3"))
    chosen = choose(run, state)
    cells = bilinear_cells(chosen.locations[:, 0].reshape(-1, 2), chosen.weights[:, 0].ravel() / 8, run.trace.spatial_shapes[0])
    np.testing.assert_allclose(footprint(chosen, state).grid, cells, atol=1e-7)


def test_a_coarse_cell_keeps_its_amount_on_the_fine_grid():
    cells = np.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(regrid(cells, (4, 4)), np.kron(cells / 4, np.ones((2, 2))))
    odd = regrid(cells, (3, 5))
    assert odd.sum() == pytest.approx(10)
    np.testing.assert_allclose(odd[0], np.array([0.4, 0.4, 0.2 + 0.4, 0.8, 0.8]) * 2 / 3)


def test_points_beyond_the_gutter_are_counted_at_their_border(run):
    state = ViewState(view="points", point=(0.0, 0.0), scale="S1", step="B1 all")
    chosen = choose(run, state)
    figure = points.VIEW.figure(run, state)
    x0, x1 = figure.layout.xaxis.range
    y1, y0 = figure.layout.yaxis.range
    x, y = np.moveaxis(run.to_photo(chosen.locations).reshape(-1, 2), -1, 0)
    sides = {"left": x < x0, "right": x > x1, "top": y < y0, "bottom": y > y1}
    beyond = np.any(list(sides.values()), axis=0)
    marks = {note.name: note for note in figure.layout.annotations}
    assert beyond.any()
    assert sum(int("".join(filter(str.isdigit, mark.text))) for mark in marks.values()) == beyond.sum()
    for side, there in sides.items():  # a point beyond a corner counts at one of its two borders
        mark = marks.get(f"beyond {side}")
        assert (int("".join(filter(str.isdigit, mark.text))) if mark else 0) <= there.sum()
    drawn_x = np.concatenate([np.asarray(trace.x) for trace in drawn(figure).values()])
    assert len(drawn_x) == 128  # all are drawn where they are: the count is no substitute
    one = points.VIEW.figure(run, ViewState(view="points", point=(0.5, 0.5), step="B1 all", head=1, hidden=("S1", "S2")))
    inner = points.VIEW.figure(run, ViewState(view="points", point=(0.5, 0.5), step="B1 all", heat=True))
    assert all(int("".join(filter(str.isdigit, mark.text))) <= 8 for mark in one.layout.annotations)
    assert not inner.layout.annotations


def test_drawing_is_the_figure_and_leaves_the_run_alone(run):
    before, state = run.trace.steps[0].locations.clone(), ViewState(view="points", threshold=0.0, query=3)
    figure = points.VIEW.figure(run, state)
    assert len(figure.data) == len(points.drawing(run, state)["data"])
    assert figure.layout.images[0].source == run.picture_url
    assert figure.to_json() == points.VIEW.figure(run, state).to_json()
    assert (run.trace.steps[0].locations == before).all()
