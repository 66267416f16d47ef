"""Pictures for model cards."""

from xml.etree import ElementTree

import pytest

from litedetr.training.charts import SIDE, curve_svg, ticks


@pytest.mark.parametrize(
    ("top", "expected"), [(1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (2.4, [0, 0.5, 1, 1.5, 2]), (46.5, [0, 10, 20, 30, 40])]
)
def test_ticks_are_round(top, expected):
    assert ticks(top) == expected


def test_a_curve_has_every_figure_of_the_log():
    log = [
        {"step": 20, "seconds": 1800.0, "loss": 40.0},
        {"step": 40, "seconds": 3600.0, "loss": 20.0},
        {"step": 40, "seconds": 3600.0, "val": {"AP": 0.05, "AP50": 0.1}, "person_ap50": 0.4},
    ]
    root = ElementTree.fromstring(curve_svg(log))
    loss, *_ = (n.get("points") for n in root.iter() if n.tag.endswith("polyline"))
    assert loss == f"{SIDE / 2:.1f},{SIDE * (1 - 40 / 42):.1f} {SIDE:.1f},{SIDE * (1 - 20 / 42):.1f}"
    heights = [float(n.get("cy")) for n in root.iter() if n.tag.endswith("circle")]
    assert heights == pytest.approx([SIDE * (1 - value / 44) for value in (40, 10, 5)], abs=0.06)
    words = {n.text for n in root.iter() if n.tag.endswith("text")}
    assert {"AP", "AP50", "AP50 of person", "hours", "sum of all losses", "per cent"} <= words


def test_a_log_without_measurements_is_drawn():
    assert "polyline" in curve_svg([{"step": 20, "seconds": 10.0, "loss": 3.0}])
    assert ElementTree.fromstring(curve_svg([])) is not None
