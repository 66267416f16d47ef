"""Boxes and counts are the detections' own."""

import numpy as np
import pytest

from app.drawing import marks
from app.i18n import say
from app.run.state import ViewState
from app.theme import class_colour
from app.views import detections, versus


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5, 1.0])
def test_boxes_are_the_detections_above_the_threshold(run, threshold):
    state = ViewState(threshold=threshold)
    figure = detections.VIEW.figure(run, state)
    shown = np.flatnonzero(run.detections.scores >= threshold)
    boxes = {trace.meta: trace for trace in figure.data}
    assert set(boxes) == set(shown.tolist())
    for index, trace in boxes.items():
        x1, y1, x2, y2 = run.detections.boxes[index]
        assert (min(trace.x), max(trace.x)) == (pytest.approx(x1), pytest.approx(x2))
        assert (min(trace.y), max(trace.y)) == (pytest.approx(y1), pytest.approx(y2))
        assert run.detections.names[index] in trace.text
        assert f"{run.detections.scores[index]:.2f}" in trace.text
        assert trace.line.color == class_colour(int(run.detections.labels[index]))
    assert detections.summary(run, state)["shown"] == len(shown)


def test_classes_filter_boxes_and_are_counted(run):
    labels = run.detections.labels
    some = tuple(sorted({int(label) for label in labels[:4]}))
    state = ViewState(threshold=0.0, classes=some)
    shown = {trace.meta for trace in detections.VIEW.figure(run, state).data}
    assert shown == set(np.flatnonzero(np.isin(labels, some)).tolist())
    numbers = detections.summary(run, state)
    assert numbers["shown"] == len(shown)
    counted = {entry["label"]: entry["count"] for entry in numbers["classes"]}
    assert counted == {int(label): int((labels == label).sum()) for label in set(labels.tolist())}
    none = detections.summary(run, ViewState(threshold=1.0, classes=some))
    assert {entry["label"]: entry["count"] for entry in none["classes"]} == dict.fromkeys(some, 0)


def test_a_figure_that_draws_too_many_is_cut_and_says_so(run, monkeypatch):
    state = ViewState(threshold=0.0, lang="ko")
    monkeypatch.setattr(marks, "BOXES", 7)
    assert {trace.meta for trace in detections.VIEW.figure(run, state).data} == set(range(7))
    numbers = detections.summary(run, state)
    words = say("ko", "cut", most=7, count=len(run.detections))
    assert numbers["line"]["mouse"] == numbers["caption"] == f"{words} {say('ko', 'hint.detections')}"
    assert len(versus.VIEW.figure(run, state).data) < len(run.detections)
    monkeypatch.setattr(marks, "BOXES", len(run.detections))
    assert detections.summary(run, state)["caption"] == say("ko", "hint.detections")


def test_a_label_without_room_stands_at_another_corner_of_its_box():
    one, other = (marks.tag("cup 0.94", "#000000", 12, x=x, y=50.0, xanchor="left", yanchor="bottom") for x in (10.0, 200.0))
    assert marks.apart([[one], [one, other], [one]], pixel=1.0, most=9) == [one, other]
    assert marks.apart([[one], [other]], pixel=1.0, most=1) == [one]
