"""The verdict on a drawn box, and every number under it, found again from the trace."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import orjson
import plotly.graph_objects as go
import pytest
import torch

from app.i18n import texts
from app.run.run import Run
from app.run.state import ViewState
from app.views import missed
from litedetr.detections import Detections, top_k
from tests.app.views.small import overlap, small_run
from tests.small_models import KINDS

ALL = pytest.mark.parametrize("kind", KINDS)
BOXES = [(0.1, 0.2, 0.4, 0.6), (0.5, 0.5, 0.55, 0.57), (0.0, 0.0, 1.0, 1.0), (0.6, 0.1, 0.95, 0.9)]
DRAWN = (0.2, 0.2, 0.4, 0.4)
NEAR_BY = (0.3, 0.3, 0.2, 0.16)  # cxcywh, IoU 0.8 with it
FAR = (0.7, 0.7, 0.1, 0.1)


def state_at(box, threshold=0.3, **changes):
    return ViewState(view="missed", box=box, threshold=threshold, **changes)


def in_pixels(run, box):
    height, width = run.size
    return [value * side for value, side in zip(box, (width, height, width, height), strict=True)]


def clipped(run, box):
    """cxcywh in [0, 1] -> xyxy in pixels, inside the photo."""
    cx, cy, w, h = (float(value) for value in box)
    return in_pixels(run, [min(max(value, 0.0), 1.0) for value in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)])


def common(a, b):
    return overlap(a, b) if (a[2] - a[0]) * (a[3] - a[1]) > 0 else 0.0


@ALL
def test_every_state_is_drawn_and_can_be_sent(kind):
    run = small_run(kind)
    steps = itertools.cycle(["auto", "B1 all", "decoder 2", "no such step"])
    for number, box in enumerate([None, *BOXES]):
        state = state_at(box, [0.0, 0.3, 1.0][number % 3], step=next(steps), lang=["en", "ko"][number % 2])
        state = state.with_(classes=[(), (2,), (1, 3), (77,)][number % 4], query=[None, 3][number % 2])
        drawn = missed.drawing(run, state)
        sent = [drawn, missed.charts(run, state), missed.controls(run, state), missed.summary(run, state)]
        orjson.dumps(sent, default=np.ascontiguousarray, option=orjson.OPT_SERIALIZE_NUMPY)
        assert len(missed.charts(run, state)) == (box is not None)
        if number < 2:
            assert len(missed.VIEW.figure(run, state).data) == len(drawn["data"])
            assert [len(go.Figure(chart).data) for chart in missed.charts(run, state)] == [
                len(chart["data"]) for chart in sent[1]
            ]


@ALL
@pytest.mark.parametrize("box", BOXES)
def test_proposals_are_the_nearest_tokens_with_their_ranks(kind, box):
    run = small_run(kind)
    trace = run.trace
    numbers = missed.summary(run, state_at(box))
    if trace.selected_tokens is None:
        assert numbers["proposals"] == []
        assert numbers["cut"] is None
        return
    shares = [0.0 if (row == 1).all() else common(clipped(run, row), in_pixels(run, box)) for row in trace.proposal_boxes]
    strength = trace.proposal_logits.amax(1) if run.config.family == "dino" else trace.proposal_logits[:, 0]
    best = sorted(shares, reverse=True)[:6]
    listed = [proposal["overlap"] for proposal in numbers["proposals"]]
    assert len(listed) == min(6, sum(share > 0 for share in shares))
    own = numbers["values"].get("token") is not None  # the verdict's token is listed, nearest or not
    assert sorted(listed, reverse=True)[: len(listed) - own] == pytest.approx(best[: len(listed) - own], abs=1e-4)
    assert numbers["near_tokens"] == sum(share >= 0.5 for share in shares)
    for proposal in numbers["proposals"]:
        token = proposal["token"]
        assert proposal["overlap"] == pytest.approx(shares[token], abs=1e-4)
        stronger = int((strength > strength[token]).sum())
        ties = int((strength == strength[token]).sum())
        assert stronger < proposal["rank"] <= stronger + ties
        where = np.flatnonzero(trace.selected_tokens.numpy() == token)
        assert proposal["query"] == (int(where[0]) if len(where) else None)
        assert (proposal["rank"] <= len(trace.selected_tokens)) == (proposal["query"] is not None)
        score = torch.sigmoid(strength[token])
        assert proposal["score"] == pytest.approx(float(score))


@ALL
@pytest.mark.parametrize(("box", "classes"), [(BOXES[0], ()), (BOXES[2], (2,)), (BOXES[3], (1, 3))])
def test_queries_are_followed_layer_by_layer(kind, box, classes):
    run = small_run(kind)
    trace = run.trace
    numbers = missed.summary(run, state_at(box, classes=classes))
    counting = list(classes) or list(range(run.config.num_classes))
    for life in numbers["queries"]:
        query = life["query"]
        for stage in range(len(trace.boxes)):
            share = common(clipped(run, trace.boxes[stage, query]), in_pixels(run, box))
            assert life["overlaps"][stage] == pytest.approx(share, abs=1e-4)
        for stage, logits in enumerate(trace.logits, start=1):
            scores = torch.sigmoid(logits[:, counting])
            assert life["scores"][stage] == pytest.approx(float(scores[query].max()))
            assert life["labels"][stage] == counting[int(scores[query].argmax())]
            assert life["ranks"][stage] == int((scores.amax(1) > scores[query].max()).sum()) + 1
        if run.config.family == "dino":
            start = torch.sigmoid(trace.proposal_logits[trace.selected_tokens[query], counting])
            assert life["scores"][0] == pytest.approx(float(start.max()))
        else:
            assert life["scores"][0] is None
    lines = [trace_ for trace_ in missed.charts(run, state_at(box, classes=classes))[0]["data"] if trace_["name"].startswith("q")]
    for life, (scores, shares, ranks) in zip(numbers["queries"], zip(*[iter(lines)] * 3, strict=True), strict=True):
        assert scores["y"] == life["scores"]
        assert shares["y"] == life["overlaps"]
        assert [rank or 0 for rank in ranks["y"]] == life["ranks"]


def story(*, boxes, scores, others=None, kind="H3L1", keep=100, proposals=None) -> Run:
    """A run whose first query has these boxes and scores of class 1, stage by stage; the other queries are `others` or far off.

    Args:
        boxes: cxcywh, before the decoder and after each layer.
        scores: likewise.
        others: {query: (cxcywh, label, score)} after the last layer.
        proposals: {token: (cxcywh, score)}, tokens that were not chosen.
    """
    run = small_run(kind)
    trace = copy.copy(run.trace)
    trace.boxes = torch.tensor(FAR).expand(trace.boxes.shape).clone()
    trace.logits = torch.full_like(trace.logits, -6.0)
    for stage, box in enumerate(boxes):
        trace.boxes[stage, 0] = torch.tensor(box)
    trace.logits[:, 0, 1] = torch.tensor(scores[1:]).logit()
    for query, (box, label, score) in (others or {}).items():
        trace.boxes[-1, query] = torch.tensor(box)
        trace.logits[-1, query, label] = torch.tensor(score).logit()
    if trace.proposal_logits is not None:
        trace.proposal_logits = torch.full_like(trace.proposal_logits, -5.0)
        trace.proposal_boxes = torch.tensor(FAR).expand(trace.proposal_boxes.shape).clone()
        trace.proposal_logits[trace.selected_tokens] = -4.0
        trace.proposal_boxes[trace.selected_tokens] = trace.boxes[0]
        trace.proposal_logits[trace.selected_tokens[0], 1] = torch.tensor(scores[0]).logit()
        for token, (box, score) in (proposals or {}).items():
            trace.proposal_boxes[token], trace.proposal_logits[token, 1] = torch.tensor(box), torch.tensor(score).logit()
    kept = top_k(trace.logits[-1].numpy(), trace.boxes[-1].numpy(), run.size, keep)
    found: Detections = replace(run.detections, scores=kept[0], labels=kept[1], boxes=kept[2], queries=kept[3], trace=trace)
    return replace(run, id=f"story-{kind}", detections=found)


def spare_tokens(run):
    chosen = set(run.trace.selected_tokens.tolist())
    return [token for token in range(len(run.trace.proposal_logits)) if token not in chosen]


STAY = [NEAR_BY] * 4


def verdict(run, **changes):
    numbers = missed.summary(run, state_at(DRAWN, **changes))
    answer = numbers["answer"]
    assert answer["title"] == texts("en")[f"missed.badge.{numbers['verdict']}"]
    assert answer["tone"] == {"found": "good", "otherwise": "warn"}.get(numbers["verdict"], "bad")
    assert "{" not in answer["text"]
    return numbers["verdict"], numbers["values"], answer["text"]


def test_it_was_found():
    kind, values, sentence = verdict(story(boxes=STAY, scores=[0.1, 0.2, 0.4, 0.7]))
    assert kind == "found"
    assert values["score"] == pytest.approx(0.7)
    assert values["overlap"] == pytest.approx(0.8, abs=1e-4)
    assert "class 1 with score 0.700" in sentence
    assert "IoU 0.800" in sentence


def test_it_was_found_as_another_class():
    run = story(boxes=STAY, scores=[0.1, 0.2, 0.4, 0.7])
    kind, values, sentence = verdict(run, classes=(3,))
    assert kind == "otherwise"
    assert (values["name"], values["wanted"]) == ("class 1", "class 3")
    assert values["best"] == pytest.approx(float(torch.sigmoid(torch.tensor(-6.0))))


def test_the_list_was_full():
    others = dict.fromkeys(range(1, 6), ((0.7, 0.7, 0.1, 0.1), 2, 0.9))
    kind, values, _ = verdict(story(boxes=STAY, scores=[0.1, 0.2, 0.4, 0.5], others=others, keep=5))
    assert kind == "crowded"
    assert (values["query"], values["kept"]) == (0, 5)


def test_another_query_won():
    boxes, scores = [(0.31, 0.31, 0.24, 0.2)] * 4, [0.1, 0.4, 0.3, 0.1]
    winner = (0.36, 0.33, 0.3, 0.22)
    run = story(boxes=boxes, scores=scores, others={5: (winner, 1, 0.9)})
    drawn, loser, other = (in_pixels(run, DRAWN), clipped(run, boxes[-1]), clipped(run, winner))
    assert overlap(drawn, other) < 0.5 <= min(overlap(drawn, loser), overlap(loser, other))
    kind, values, _ = verdict(run)
    assert kind == "duplicate"
    assert (values["query"], values["winner"]) == (0, 5)
    assert values["winning"] == pytest.approx(0.9)
    assert values["shared"] == pytest.approx(overlap(loser, other), abs=1e-4)
    assert verdict(story(boxes=boxes, scores=scores, others={5: (winner, 2, 0.9)}))[0] == "fell"


def test_the_score_fell():
    kind, values, sentence = verdict(story(boxes=STAY, scores=[0.1, 0.2, 0.4, 0.1]))
    assert kind == "fell"
    assert (values["stage"], values["before"], values["after"]) == (2, pytest.approx(0.4), pytest.approx(0.1))
    assert "“decoder 2” it had 0.400" in sentence
    assert "at “decoder 3” only 0.100" in sentence
    assert verdict(story(boxes=STAY, scores=[0.5, 0.2, 0.1, 0.1]))[1]["stage"] == 0


def test_it_was_never_sure():
    kind, values, sentence = verdict(story(boxes=STAY, scores=[0.1, 0.25, 0.2, 0.1]))
    assert kind == "weak"
    assert (values["stage"], values["best"]) == (1, pytest.approx(0.25))
    assert "threshold is 0.300" in sentence


@pytest.mark.parametrize("kind", ["H3L1", "one-stage"])
def test_the_box_left(kind):
    run = story(boxes=[NEAR_BY, NEAR_BY, FAR, FAR], scores=[0.1, 0.2, 0.9, 0.9], kind=kind)
    kind, values, _ = verdict(run)
    assert kind == "left"
    assert (values["query"], values["stage"]) == (0, 1)
    assert values["before"] == pytest.approx(0.8, abs=1e-4)
    assert values["overlap"] == 0


def test_the_cut():
    spare = spare_tokens(small_run("H3L1"))
    proposals = {spare[3]: (NEAR_BY, 0.0129), spare[7]: (NEAR_BY, 0.0131), spare[9]: (FAR, 0.014)}
    run = story(boxes=[FAR] * 4, scores=[0.1, 0.2, 0.1, 0.1], proposals=proposals)
    kind, values, sentence = verdict(run)
    queries = len(run.trace.selected_tokens)
    assert kind == "cut"
    assert (values["token"], values["rank"], values["queries"]) == (spare[7], queries + 2, queries)
    assert (values["own"], values["count"]) == (pytest.approx(0.0131, rel=1e-4), 2)
    assert values["needed"] == pytest.approx(float(torch.sigmoid(torch.tensor(-4.0))))
    assert f"rank {queries + 2} of {len(run.trace.proposal_logits)}" in sentence


@pytest.mark.parametrize(("kind", "expected"), [("H3L1", "unseen"), ("two-stage", "unseen"), ("one-stage", "no_query")])
def test_nobody_looked_there(kind, expected):
    near = (0.3, 0.3, 0.2, 0.09)  # IoU 0.45
    run = story(boxes=[FAR] * 3 + [near], scores=[0.1, 0.2, 0.1, 0.1], kind=kind)
    if expected == "unseen":
        run.trace.proposal_boxes[spare_tokens(run)[2]] = torch.tensor(near)
    found, values, _ = verdict(run)
    assert found == expected
    assert values["overlap"] == pytest.approx(0.45, abs=1e-4)


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_a_model_without_proposals_says_so(lang):
    notes = missed.summary(small_run("one-stage"), state_at(BOXES[0], lang=lang))["notes"]
    assert texts(lang)["missed.note.one_stage"] in notes
    notes = missed.summary(small_run("H3L1"), state_at(BOXES[0], lang=lang))["notes"]
    assert texts(lang)["missed.note.one_stage"] not in notes


def test_without_a_box_there_is_a_hint_and_no_verdict():
    run = small_run("H3L1")
    numbers = missed.summary(run, state_at(None))
    assert numbers["notes"] == [texts("en")["missed.hint"].format(button="Draw a box")]
    assert numbers["verdict"] is None
    assert missed.charts(run, state_at(None)) == []


def test_rows_select_what_they_show():
    run = small_run("H3L1")
    state = state_at(BOXES[0])
    numbers = missed.summary(run, state)
    assert len(numbers["table"]["rows"]) >= len(numbers["queries"])
    for row in numbers["table"]["rows"]:
        chosen = ViewState.from_query({"view": "missed", **row["set"]})
        if row["set"]["q"]:
            assert row["cells"][1].startswith(f"q{chosen.query}")
        else:
            proposal = next(p for p in numbers["proposals"] if f"#{p['rank']:,}" == row["cells"][0])
            assert proposal["query"] is None
            expected = [proposal["centre"][0] / run.size[1], proposal["centre"][1] / run.size[0]]
            assert chosen.point == pytest.approx(expected, abs=1e-4)
            assert chosen.scale == proposal["scale"]
