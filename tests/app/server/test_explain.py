"""What programs are told of where a query looked."""

import json

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from app.engine.engine import EXAMPLES
from app.server.explain import ExplainError, explain
from tests.app import live

CAT = str(EXAMPLES / "cat.jpg")
NAMES = ["S1", "S2", "S3", "S4"]


def arrays(answer):
    """(M, L, P, 2) and (M, L, P), finest scale first as in a trace."""
    scales = [answer["scales"][name] for name in reversed(NAMES)]
    return np.stack([s["points"] for s in scales], 1), np.stack([s["weights"] for s in scales], 1)


def test_a_detection_is_explained_by_the_traces_own_numbers(run):
    for index, name in ((0, "decoder 2"), (7, "decoder 1")):
        answer = json.loads(json.dumps(explain(run, detection=index, step=name)))
        step, query = run.trace.step(name), int(run.detections.queries[index])
        points, weights = arrays(answer)
        expected = run.to_photo(step.locations[query].float().numpy())
        np.testing.assert_allclose(points, expected, atol=0.006)
        np.testing.assert_allclose(weights, step.weights[query].float(), atol=1e-6)
        np.testing.assert_allclose(weights.sum(axis=(1, 2)), 1, atol=1e-4)
        assert sum(scale["share"] for scale in answer["scales"].values()) == pytest.approx(1, abs=1e-5)
        assert list(answer["scales"]) == NAMES
        assert (answer["step"], answer["kind"], answer["query"]) == (name, "object", query)
        assert answer["rebuild_error"] < 1e-4
        found = run.detections.to_dict()["detections"]
        best = next(place for place, other in enumerate(run.detections.queries) if other == query)
        assert answer["detection"] == {"index": best, **found[best]}


def test_a_point_is_explained_by_the_token_that_holds_it(run):
    height, width = run.size
    for name, scale, (x, y) in (("B1 high", "S2", (40, 30)), ("B3 all", "S4", (width - 1, height - 1)), ("B1 all", "S1", (0, 0))):
        answer = explain(run, x, y, step=name, scale=scale)
        x1, y1, x2, y2 = answer["box"]
        assert x1 - 0.01 <= x <= x2 + 0.01
        assert y1 - 0.01 <= y <= y2 + 0.01
        assert (answer["kind"], answer["scale"], answer["step"]) == ("token", scale, name)
        step = run.trace.step(name)
        levels = step.query_levels
        shapes = [step.spatial_shapes[level] for level in levels]
        before = sum(h * w for h, w in shapes[: step.query_scales.index(scale)])
        h, w = shapes[step.query_scales.index(scale)]
        inside = run.trace.geometry.from_photo(np.array([x, y], dtype=float))
        row = before + min(int(inside[1] * h), h - 1) * w + min(int(inside[0] * w), w - 1)
        np.testing.assert_allclose(arrays(answer)[1], step.weights[row].float(), atol=1e-6)


def test_without_a_choice_the_last_step_of_what_fits(run):
    assert explain(run)["step"] in (run.step_names[-1], "B3 all")
    assert explain(run, detection=0)["step"] == "decoder 3"
    assert explain(run, 5, 5)["step"] == "B3 all"
    assert explain(run, 5, 5, step=None, scale=None)["scale"] == "S4"
    answer = explain(run, 5, 5, step="B1 high", scale="S4")  # S4 waits: the answer says so and takes the finest that asks
    assert answer["scale"] == "S3"
    assert "S4" in answer["notes"][0]


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"x": 331, "y": 5}, "expected x from 0 to 330 and y from 0 to 210, the photo's pixels, got 331, 5"),
        ({"x": 5}, "got 5, nothing"),
        ({"x": float("nan"), "y": 5}, "got nan, 5"),
        ({"x": 5, "y": float("inf")}, "got 5, inf"),
        ({"detection": -1}, r"expected a detection from 0 to \d+, as /detect lists them, got -1"),
        ({"detection": 1e300}, r"got 1e\+300"),
        ({"detection": 0.5}, "got 0.5"),
        ({"detection": 0, "x": 1, "y": 1}, "got both"),
        ({"step": "B9 high"}, "or one of B1 high, B1 all, .*, decoder 3, got 'B9 high'"),
        ({"scale": "S" * 99}, "or one of S1, S2, S3, S4, got 'S{40}'"),
    ],
)
def test_what_it_cannot_answer_is_a_sentence(run, choice, words):
    with pytest.raises(ExplainError, match=words) as caught:
        explain(run, **choice)
    assert str(caught.value).endswith(".")


def test_explain_over_http_agrees_and_keeps_nothing(engine):
    client = Client(live.address(), verbose=False)
    kept = len(engine.store)
    found = client.predict(handle_file(CAT), threshold=0.0, api_name="/detect")
    answer = client.predict(handle_file(CAT), detection=2, step="B2 all", api_name="/explain")
    expected = explain(engine.run(CAT, keep=False), detection=2, step="B2 all")
    assert answer["scales"] == json.loads(json.dumps(expected["scales"]))
    assert answer["detection"]["box"] == found["detections"][answer["detection"]["index"]]["box"]
    with pytest.raises(AppError, match="from 0 to 300, the photo's pixels, got 3, 1e"):
        client.predict(handle_file(CAT), x=3, y=1e9, api_name="/explain")
    with pytest.raises(AppError, match="expected a threshold from 0 to 1, got 2"):
        client.predict(handle_file(CAT), threshold=2, api_name="/detect")
    assert len(engine.store) == kept
