import pytest

from app.run.rail import stops


def test_the_rail_is_the_model(run):
    rail = stops(run)
    assert [stop["name"] for stop in rail] == ["backbone", *run.step_names, "boxes"]
    by_name = {stop["name"]: stop for stop in rail}
    assert by_name["B1 high"]["updates"] == ["S1", "S2", "S3"]
    assert by_name["B1 all"]["updates"] == ["S1", "S2", "S3", "S4"]
    assert by_name["B1 high"]["gmacs"] < by_name["B1 all"]["gmacs"]
    total = run.cost.total - run.cost.selection
    assert sum(stop["gmacs"] for stop in rail) == pytest.approx(total)
