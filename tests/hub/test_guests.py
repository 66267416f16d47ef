"""Models of transformers from a Hub, by the files that the page needs of them."""

import json

import pytest
import torch

from litedetr.guests.folder import load
from litedetr.weights import WeightsError
from litedetr.weights.limits import Limits
from tests.guests import zoo
from tests.guests.conftest import guest
from tests.hub.conftest import read

NAME = "owner/rtdetr"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("rtdetr")
    guest("rt_detr").model.save_pretrained(folder)
    size = {"height": zoo.SIDE, "width": zoo.SIDE}
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": size, "do_normalize": False}))
    return read(folder)


def test_it_loads_within_the_limits(hub, published, tmp_path):
    hub.add(NAME, published)
    progress = []
    limits = Limits(cache=tmp_path / "visitors")
    detector = load(NAME, token=False, progress=lambda done, total: progress.append((done, total)), limits=limits)
    pixels = zoo.photo()
    with torch.no_grad():
        ours, theirs = detector.model(pixels), guest("rt_detr").model(pixels)
    assert torch.equal(ours.logits, theirs.logits)
    assert progress[-1] == (len(published["model.safetensors"]),) * 2
    assert (tmp_path / "visitors").is_dir()


def test_what_is_too_large_is_not_downloaded(hub, published):
    hub.add(NAME, published)
    with pytest.raises(WeightsError, match="expected a model of at most 0 MB"):
        load(NAME, limits=Limits(file_bytes=1000))


def test_a_missing_file_is_named(hub, published):
    for missing in ("preprocessor_config.json", "model.safetensors"):
        hub.add(f"owner/without-{missing[:5]}", {name: content for name, content in published.items() if name != missing})
        with pytest.raises(WeightsError, match=f"expected {missing} in owner/without-{missing[:5]}"):
            load(f"owner/without-{missing[:5]}")


def test_other_types_are_refused_as_before(hub, published):
    config = json.loads(published["config.json"]) | {"model_type": "grounding-dino"}
    hub.add(NAME, published | {"config.json": json.dumps(config).encode()})
    with pytest.raises(WeightsError, match="got the type 'grounding-dino'"):
        load(NAME)
