"""The authors' weights in the page: as second models, and as the page's own; from a server on loopback."""

import argparse
import io
from pathlib import Path

import pytest
import torch

from app.i18n import say
from app.run.state import ViewState
from app.server.lookups import Lookups
from app.ui import own_address
from app.views import view_of
from tests import golden_data as golden
from tests.app import own_process
from tests.pictures import scene
from tests.weights.conftest import NAME, checkpoint, host, host_server, path  # noqa: F401  fixtures

ROOT = Path(__file__).resolve().parents[2]
OTHER = f"published/{NAME}"


@pytest.fixture
def forgotten(engine):
    """The model is not in memory before the test and after it."""
    engine.models._loaded.pop(OTHER, None)
    yield
    engine.models._loaded.pop(OTHER, None)


@pytest.mark.usefixtures("forgotten")
def test_as_second_models(engine, host, path, checkpoint):  # noqa: F811
    """Full against Lite and Most attended download one, say so, and show it beside the run."""
    host.add(path, checkpoint)
    run, lookups, told = engine.run(scene(120, 90)), Lookups(engine.store), []
    for view in ("versus", "attended"):
        state = ViewState(view=view, other=OTHER, threshold=0.0)
        assert OTHER in [value for value, _ in view_of(view, run).controls(run, state)[-1]["options"]]
        assert not lookups.look({"run": run.id, "state": state.to_query()})["job"]["done"]
        engine.compute(run, state, told.append)
        answer = lookups.look({"run": run.id, "state": state.to_query()})
        assert answer["job"]["done"]
        if view == "versus":
            assert answer["summary"]["results"]["right"]["schedule"] == "H3L1-(2+1)x3"
            assert answer["summary"]["results"]["right"]["name"].startswith(OTHER)
        else:
            assert say("en", "attended.note.other.kda") in answer["summary"]["notes"]
    assert say("en", "status.converting", model=OTHER) in [event.get("text") for event in told]
    assert len(host.asked) == 1


def test_as_the_pages_own(host, path, tmp_path):  # noqa: F811
    """``LITEDETR_MODEL=NAME python app.py``, as a host starts it, for everybody in its network."""
    entry, _, parameters = golden.load("model", "lite_dino_s3ex3_kda")
    saved = io.BytesIO()  # eight heads, as the catalogue says, with two points each
    args = entry["config"] | {"nheads": 8, "enc_n_points": 2, "dec_n_points": 2}
    torch.save({"model": parameters, "args": argparse.Namespace(**args)}, saved)
    host.add(path, saved.getvalue())
    given = {"LITEDETR_MIRROR": host.url, "LITEDETR_DOWNLOADS": str(tmp_path / "cache"), "GRADIO_SERVER_NAME": "0.0.0.0"}
    with own_process.started(ROOT, tmp_path, LITEDETR_MODEL=NAME, **given) as server:
        answer = server.ask("explain", ROOT / "assets" / "examples" / "cat.jpg", x=0.5, y=0.5, step="B3 all")
        assert set(server.outside()) <= {"192.0.2.1"}  # nobody's: it is never sent anything
        assert own_address() is None or f"http://{own_address()}:{server.url.rpartition(':')[2]}" in server.log()
        assert "Traceback" not in server.log()
    assert host.asked == [(path, "")]
    assert answer["model"].startswith("Lite-DINO · ResNet-50 · H3L1-(2+1)x3")
    assert len(answer["scales"]["S4"]["points"]) == 8
    assert answer["rebuild_error"] < 1e-4
