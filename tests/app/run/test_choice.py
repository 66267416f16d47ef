import numpy as np
import pytest

from app.engine.engine import EXAMPLES, Engine
from app.run.choice import choose, detection_at, detection_of, move, pick
from app.run.state import LANGUAGES, ViewState
from litedetr import Detector
from tests.app.views.small import small_run


def centre(run, index):
    x1, y1, x2, y2 = run.detections.boxes[index]
    return (x1 + x2) / 2 / run.size[1], (y1 + y2) / 2 / run.size[0]


def test_a_click_takes_the_smallest_detection_that_holds_it(run, everything):
    x, y = centre(run, 0)
    state = pick(run, everything, x, y)
    hit = detection_of(run, state.query)
    boxes = run.detections.boxes
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    px, py = x * run.size[1], y * run.size[0]
    inside = (boxes[:, 0] <= px) & (px <= boxes[:, 2]) & (boxes[:, 1] <= py) & (py <= boxes[:, 3])
    assert area[run.detections.queries == state.query].min() <= area[inside].min() + 1e-3
    assert hit is not None
    assert choose(run, state).step.name == run.trace.decoder_steps[-1].name


def test_a_click_beside_every_detection_asks_a_token_of_the_last_encoder_step(run):
    state = pick(run, ViewState(threshold=1.0), 0.4, 0.6)
    chosen = choose(run, state)
    assert (state.query, state.point) == (None, (0.4, 0.6))
    assert chosen.step is run.trace.encoder_steps[-1]
    assert chosen.kind == "token"
    assert chosen.notes == ()


@pytest.mark.parametrize("scale", ["S1", "S2", "S3", "S4"])
def test_the_token_is_the_one_under_the_point(run, scale):
    state = ViewState(view="points", point=(0.37, 0.81), scale=scale, step="B1 all")
    chosen = choose(run, state)
    x, y = 0.37 * run.size[1], 0.81 * run.size[0]
    assert chosen.scale == scale
    assert chosen.box[0] <= x <= chosen.box[2]
    assert chosen.box[1] <= y <= chosen.box[3]
    level = chosen.step.scales.index(scale)
    reference = chosen.step.reference_points[chosen.row, level].numpy()
    np.testing.assert_allclose(run.to_photo(reference), chosen.reference, rtol=1e-6)
    assert chosen.box[0] < chosen.reference[0] < chosen.box[2]
    assert chosen.box[1] < chosen.reference[1] < chosen.box[3]


def test_a_scale_that_waits_is_said_and_replaced(run):
    chosen = choose(run, ViewState(view="points", point=(0.5, 0.5), scale="S4", step="B1 high"))
    assert chosen.scale == "S3"
    ((key, values),) = chosen.notes
    assert key == "scale_waits"
    assert values == {"scale": "S4", "step": "B1 high", "asking": "S1, S2, S3"}


def test_a_scale_that_the_model_lacks_is_said(run):
    chosen = choose(run, ViewState(view="points", point=(0.5, 0.5), scale="S7", step="B1 all"))
    assert chosen.scale == "S4"
    assert chosen.notes[0][0] == "scale_unknown"


def test_a_point_in_the_decoder_becomes_the_nearest_object(run):
    state = ViewState(view="points", point=(0.1, 0.2), step="decoder 2", threshold=1.0)
    chosen = choose(run, state)
    centres = run.trace.boxes[1][:, :2].numpy() * np.array(run.size[::-1])
    target = np.array([0.1 * run.size[1], 0.2 * run.size[0]])
    assert chosen.query == np.linalg.norm(centres - target, axis=1).argmin()
    assert chosen.notes[0][0] == "point_near_object"


def test_a_point_in_a_shown_detection_becomes_that_detection_in_the_decoder(run, everything):
    x, y = centre(run, 0)
    chosen = choose(run, everything.with_(view="points", point=(x, y), step="decoder 1"))
    hit = detection_at(run, everything, (x, y))
    assert chosen.query == run.detections.queries[hit]
    assert chosen.notes[0][0] == "point_in_detection"


def test_a_detection_in_the_encoder_is_the_token_it_came_from(run, everything):
    query = int(run.detections.queries[0])
    chosen = choose(run, everything.with_(view="points", query=query, step="B3 all"))
    assert chosen.row + chosen.step.first_query == int(run.trace.selected_tokens[query])
    assert chosen.query is not None
    assert chosen.notes[0][0] == "token_of_object"


@pytest.mark.parametrize(
    "state", [ViewState(), ViewState(query=99_999), ViewState(step="no such step"), ViewState(threshold=1.0)]
)
@pytest.mark.parametrize("step", ["auto", "B1 high", "decoder 1", "nonsense"])
def test_something_is_always_selected(run, state, step):
    assert choose(run, state.with_(step=step)).weights.shape == (8, 4, 4)


def test_arrows_walk_over_tokens(run):
    state = ViewState(view="points", point=(0.5, 0.5), scale="S2", step="B1 all")
    column, row = choose(run, state).cell
    right = move(run, state, 1, 0)
    assert choose(run, right).cell == (column + 1, row)
    assert choose(run, move(run, right, -1, -1)).cell == (column, row - 1)
    corner = move(run, state, -100, -100)
    assert choose(run, corner).cell == (0, 0)
    assert choose(run, move(run, corner, -1, 0)).cell == (0, 0)


def test_arrows_walk_over_detections_and_come_round(run, everything):
    first = move(run, everything, 1, 0)
    assert first.query == run.detections.queries[0]
    assert move(run, move(run, first, 1, 0), 0, -1).query == first.query
    count = len(dict.fromkeys(run.detections.queries.tolist()))
    state = first
    for _ in range(count):
        state = move(run, state, 0, 1)
    assert state.query == first.query


def test_clicks_beside_the_photo_are_at_its_border(run):
    assert pick(run, ViewState(threshold=1.0), -3.0, 7.0).point == (0.0, 1.0)


def test_models_whose_queries_are_learned(tmp_path):
    """Single-stage Deformable DETR: no token became a query, so the encoder's steps show the one in the middle of the box."""
    small = {"backbone_width": 8, "width": 64, "encoder_ffn": 64, "decoder_ffn": 64, "queries": 20}
    Detector.from_preset("deformable-detr-r50", short_side=96, long_side=128, **small).save_pretrained(tmp_path)
    run = Engine(str(tmp_path)).run(EXAMPLES / "cat.jpg")
    step = run.trace.encoder_steps[-1]
    chosen = choose(run, ViewState(view="points", query=3, step=step.name))
    assert (chosen.kind, chosen.query) == ("token", None)
    assert [note for note, _ in chosen.notes] == ["token_at_object"]
    middle = run.trace.boxes[-1, 3, :2].numpy() * (run.size[1], run.size[0])
    x1, y1, x2, y2 = chosen.box
    assert x1 - 1 <= middle[0] <= x2 + 1
    assert y1 - 1 <= middle[1] <= y2 + 1


def test_every_note_is_a_sentence_in_every_language(run, everything):
    x, y = centre(run, 0)
    query = int(run.detections.queries[0])
    states = {
        "scale_waits": ViewState(point=(0.5, 0.5), scale="S4", step="B1 high"),
        "scale_unknown": ViewState(point=(0.5, 0.5), scale="S7", step="B1 all"),
        "point_near_object": ViewState(point=(0.1, 0.2), step="decoder 2", threshold=1.0),
        "point_in_detection": everything.with_(point=(x, y), step="decoder 1"),
        "token_of_object": everything.with_(query=query, step="B3 all"),
        "token_at_object": ViewState(query=3, step=small_run("one-stage").trace.encoder_steps[0].name),
    }
    for key, state in states.items():
        chosen = choose(small_run("one-stage") if key == "token_at_object" else run, state)
        assert [name for name, _ in chosen.notes] == [key]
        english, korean = (chosen.sentences(lang) for lang in LANGUAGES)
        assert english[0].endswith(".")
        assert english != korean
        assert not any("note." in text or "{" in text for text in (*english, *korean))
