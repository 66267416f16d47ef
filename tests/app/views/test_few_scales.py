"""Models with one scale, and with two: every view draws, or says why not."""

import pytest

from app.run.state import ViewState
from app.views import VIEWS
from tests.app.views.small import small_run
from tests.small_models import FEW_SCALES


@pytest.mark.parametrize("kind", FEW_SCALES)
@pytest.mark.parametrize("name", VIEWS)
def test_every_view_draws(kind, name):
    run, view = small_run(kind), VIEWS[name]
    for step in (run.trace.steps[0].name, run.trace.steps[-1].name):
        state = ViewState(view=name, step=step)
        if view.needs(run, state) is not None:
            assert (kind, name) == ("one scale", "desire")  # plain attention has no keys
            continue
        drawn = view.figure(run, state)
        assert drawn.layout.images or drawn.data
        assert view.summary(run, state)
        view.charts(run, state)
        view.controls(run, state)
