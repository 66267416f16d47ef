"""The ablation's chart in the schedule view."""

import json

import pytest

from app.run.state import ViewState
from app.views import schedule
from app.views.schedule import trained
from litedetr import EncoderSchedule
from tests.app.views.small import small_run

RUN = {"AP50": 7.0, "AP_medium": 3.0, "AP_large": 9.0, "person_ap50": 20.0}
FOUND = {
    "size": 192, "steps": 600, "photos": 4800,
    "variants": [
        {"name": "full", "schedule": "H4L0-(1+1)x6", "key_aware": True, "gmacs": 2.0, "encoder_gmacs": 1.5, "encoder_ms": 20.0,
         "runs": [{"seed": 0, "AP": 4.0, "AP_small": 0.5, **RUN}, {"seed": 1, "AP": 5.0, "AP_small": 0.7, **RUN}]},
        {"name": "lite", "schedule": "H3L1-(2+1)x3", "key_aware": True, "gmacs": 1.0, "encoder_gmacs": 0.6,
         "runs": [{"seed": 0, "AP": 3.5, "AP_small": 0.4, **RUN}]},
        {"name": "plain", "schedule": "H3L1-(2+1)x3", "key_aware": False, "gmacs": 1.0, "encoder_gmacs": 0.5,
         "runs": [{"seed": 0, "AP": 3.0, "AP_small": 0.3, **RUN}]},
        {"name": "long", "schedule": "H3L1-(6+1)x1", "key_aware": True, "gmacs": 1.0, "encoder_gmacs": 0.5, "runs": []},
    ],
}  # fmt: skip


def test_every_training_is_a_mark_that_leads_to_its_schedule():
    drawing = trained.study_chart(FOUND, EncoderSchedule.parse("H3L1-(2+1)x3"), "en")
    ap, small = drawing["data"]
    assert ap["x"] == [4.0, 5.0, 3.5, 3.0]
    assert small["x"] == [0.5, 0.7, 0.4, 0.3]
    assert ap["y"] == ["full encoder", "full encoder", "<b>H3L1-(2+1)x3</b>", "H3L1-(2+1)x3, plain"]
    assert ap["customdata"][0] == {"set": {"plan": "H4L0-(1+1)x6"}}
    assert ap["hovertext"][1] == (
        "<b>H4L0-(1+1)x6</b>, seed 1<br>AP 5.0, AP50 7.0, small objects 0.7<br>encoder: 1.50 GMACs, 20 ms"
    )
    assert drawing["layout"]["shapes"][0]["x0"] == 4.5  # the full encoder's mean


def test_a_line_says_how_far_other_photographs_would_move_a_row():
    sure = {"difference": {"AP": -0.5, "low": -1.25, "high": 2.5}}
    full = {"difference": {"AP": 0.0, "low": 0.0, "high": 0.0}}
    rows = [FOUND["variants"][0] | full, FOUND["variants"][1] | sure, *FOUND["variants"][2:]]
    drawing = trained.study_chart(FOUND | {"variants": rows}, EncoderSchedule.parse("H2L2-(2+1)x3"), "en")
    line, ap, _ = drawing["data"]
    assert (line["x"], line["y"]) == ([4.5 - 1.25, 4.5 + 2.5], ["H3L1-(2+1)x3"] * 2)  # 4.5: the full encoder's mean
    assert not line["showlegend"]
    assert drawing["layout"]["xaxis"]["range"][1] > 7.0
    assert ap["hovertext"][2].endswith("<br>AP less the full encoder's: -0.5 (-1.2 to +2.5)")
    assert "less" not in ap["hovertext"][0]  # nothing to compare the first row with
    assert "less" not in ap["hovertext"][3]  # not measured


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_the_view_shows_it_where_there_is_one(lang, tmp_path, monkeypatch):
    state = ViewState(view="schedule", lang=lang)
    for content, charts in ((FOUND, 3), (None, 2)):
        monkeypatch.setattr(trained, "STUDY", tmp_path / "study.json")
        (tmp_path / "study.json").unlink(missing_ok=True)
        if content:
            (tmp_path / "study.json").write_text(json.dumps(content))
        trained.study.cache_clear()
        run = small_run("H3L1")
        assert len(schedule.charts(run, state)) == charts
        assert any("4,800" in note for note in schedule.summary(run, state)["notes"]) == bool(content)
    trained.study.cache_clear()
