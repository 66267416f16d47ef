"""transformers' DeformableDetr from a Hub as it is, in the layouts in which it is published."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from litedetr import Detector
from tests.hub.conftest import read, refusal
from tests.weights.of_transformers import build, name_of_2022

NAME = "owner/deformable"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A tiny model, and its files in the layout of transformers 5."""
    folder = tmp_path_factory.mktemp("published")
    model = build(two_stage=False, box_refine=True)
    model.save_pretrained(folder)
    return model, folder


def older(name: str) -> str:
    return name_of_2022(name.replace("model.backbone.model.", "model.backbone.conv_encoder.model."))


@pytest.mark.parametrize("layout", ["new", "2022", "bin"])
def test_loads_as_it_is(hub, published, tmp_path, layout):
    model, folder = published
    files = read(folder)
    if layout != "new":
        state = {older(name): value for name, value in load_file(folder / "model.safetensors").items()}
        del files["model.safetensors"]
        file = tmp_path / ("model.safetensors" if layout == "2022" else "pytorch_model.bin")
        if layout == "2022":
            save_file(state, file, metadata={"format": "pt"})
        else:
            torch.save(state, file)
        files[file.name] = file.read_bytes()
    hub.add(NAME, files)
    detector = Detector.from_pretrained(NAME)
    assert detector.config.names == tuple(f"thing {index}" for index in range(7))
    pixels = torch.randn(1, 3, 96, 128)
    with torch.inference_mode():
        ours, theirs = detector(pixels), model(pixels)
    assert (ours.logits - theirs.logits).abs().max() < 1e-4
    assert (ours.boxes - theirs.pred_boxes).abs().max() < 1e-4


def test_cut_off(hub, published):
    files = read(published[1])
    hub.add(NAME, files | {"model.safetensors": files["model.safetensors"][:-100]})
    assert refusal(NAME).startswith("expected tensors in model.safetensors of owner/deformable, and could not read them: ")
    hub.add("owner/none", {"config.json": files["config.json"]})
    assert refusal("owner/none").startswith("expected pytorch_model.bin in owner/none, got a repository without it: ")
