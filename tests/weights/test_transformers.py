"""transformers' DeformableDetr, an independent implementation: the same random weights give the same detections."""

import argparse
import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from litedetr import Detector
from litedetr.weights import WeightsError, convert, read_config
from litedetr.weights.conversion.transformers import arguments, published_state
from tests.weights.of_transformers import build, name_of_2022

VARIANTS = {"plain": (False, False), "box refine": (False, True), "two-stage": (True, True), "one scale": (False, False, 1),
            "two scales": (True, True, 2)}  # fmt: skip


@pytest.fixture(scope="module", params=VARIANTS)
def saved(request, tmp_path_factory):
    model = build(*VARIANTS[request.param])
    folder = tmp_path_factory.mktemp("transformers")
    model.save_pretrained(folder)
    return model, folder


def test_same_detections(saved, tmp_path):
    model, folder = saved
    config = convert(folder, tmp_path)
    assert (config.two_stage, config.box_refine) == (model.config.two_stage, model.config.with_box_refine)
    assert config.names[3] == "thing 3"
    assert config.decoder_ffn == 20
    detector = Detector.from_pretrained(tmp_path)
    pixels = torch.randn(2, 3, 96, 136)
    padding = torch.zeros(2, 96, 136, dtype=torch.bool)
    padding[1, 70:], padding[1, :, 100:] = True, True
    with torch.inference_mode():
        expected = model(pixel_values=pixels, pixel_mask=(~padding).long())
        output = detector(pixels, padding)
    assert torch.allclose(output.logits, expected.logits, atol=1e-4)
    assert torch.allclose(output.boxes, expected.pred_boxes, atol=1e-4)
    assert float(expected.pred_boxes.std()) > 0.01, "the boxes must differ for this to say something"


def test_the_layout_of_2022(saved, tmp_path):
    """The Hub's files have torchvision's names in the backbone, and every copy of a head."""
    _, folder = saved
    state = load_file(folder / "model.safetensors")
    old = {name_of_2022(name): value for name, value in state.items()}
    for name, value in list(old.items()):
        if re.match(r"^model\.decoder\.(class|bbox)_embed\.", name):
            old[name.removeprefix("model.decoder.")] = value.clone()
    assert "model.backbone.conv_encoder.model.layer1.0.downsample.0.weight" in old
    (tmp_path / "old").mkdir()
    save_file(old, tmp_path / "old" / "model.safetensors")
    (tmp_path / "old" / "config.json").write_text((folder / "config.json").read_text())
    convert(folder, tmp_path / "new here")
    convert(tmp_path / "old", tmp_path / "old here")
    new, older = (load_file(tmp_path / name / "model.safetensors") for name in ("new here", "old here"))
    assert new.keys() == older.keys()
    assert all(torch.equal(new[key], older[key]) for key in new)
    assert (tmp_path / "new here" / "config.json").read_text() == (tmp_path / "old here" / "config.json").read_text()


def test_loaded_as_it_is(saved, tmp_path):
    """Also where the folder had others before, which somebody reads; never where they would be the checkpoint's own."""
    _, folder = saved
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(b"{}" if name == "config.json" else (folder / name).read_bytes())
    before = load_file(tmp_path / "model.safetensors")  # its pages are the file's
    convert(folder, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in load_file(folder / "model.safetensors").items())
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    with pytest.raises(WeightsError, match="expected another folder than the checkpoint's own to write to"):
        convert(folder, folder)
    direct, converted = Detector.from_pretrained(folder), Detector.from_pretrained(tmp_path)
    assert direct.config == converted.config == read_config(folder)
    assert not direct.training
    own = direct.state_dict()
    assert all(torch.equal(own[key], value) for key, value in converted.state_dict().items())


def test_other_kinds_are_refused(saved, tmp_path):
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"position_embedding_type": "learned"}))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(WeightsError) as error:
        convert(tmp_path, tmp_path / "out")
    assert str(error.value) == (
        "expected a transformers model with position_embedding_type sine, got 'learned': convert another one"
    )


@pytest.mark.parametrize("classes", [1, 3, 80, 91, 365])
@pytest.mark.parametrize("family", ["transformers", "deformable_detr", "h_detr"])
def test_other_families_with_any_classes(family, classes, tmp_path, caplog):
    """Saved by transformers, and under the names of the published implementations; an H-DETR with what its training had more."""
    two_stage = family == "h_detr"
    model = build(two_stage, box_refine=two_stage, classes=classes)
    if family == "transformers":
        model.save_pretrained(tmp_path / "saved")
        convert(tmp_path / "saved", tmp_path / "made")
    else:
        state, args = published_state(model.state_dict()), arguments(model.config.to_dict())
        if family == "h_detr":
            state["query_embed.weight"] = torch.rand(11 + 7, 32)
            state["class_embed_one2many.0.weight"] = torch.rand(classes, 32)
            args |= {"num_queries_one2one": 11}
        torch.save({"model": state, "args": argparse.Namespace(**args)}, tmp_path / "checkpoint.pth")
        convert(tmp_path / "checkpoint.pth", tmp_path / "made")
    detector = Detector.from_pretrained(tmp_path / "made")
    config = detector.config
    assert config.family == ("h_detr" if family == "h_detr" else "deformable_detr")
    assert config.num_classes == len(config.names) == classes
    assert config.names[-1] == f"thing {classes - 1}"
    assert torch.equal(detector.heads.classes[0].weight, model.class_embed[0].weight)
    assert any("that only training uses are left out" in record.getMessage() for record in caplog.records) == two_stage
    assert len(detector.predict(torch.zeros(3, 96, 96), threshold=0.0)) <= min(config.top_k, 11 * classes)
