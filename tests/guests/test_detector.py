"""Models of transformers behind the interface of `Detector`, from folders as transformers writes them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers.models.deformable_detr.image_processing_pil_deformable_detr import DeformableDetrImageProcessorPil
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

from litedetr import Detector
from litedetr.guests.detector import CUBIC, TITLES
from litedetr.guests.folder import load
from litedetr.weights import WeightsError
from litedetr.weights.limits import Limits
from tests.guests import zoo
from tests.guests.conftest import guest

MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
SIZE = {"height": zoo.SIDE, "width": zoo.SIDE}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A folder of each type that the page takes."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in TITLES}
    for kind, folder in folders.items():
        guest(kind).model.save_pretrained(folder)
        RTDetrImageProcessorPil(size=SIZE, do_normalize=True).save_pretrained(folder)
    return folders


@pytest.mark.parametrize("kind", TITLES)
def test_boxes_and_labels_are_those_of_transformers(folders, kind, photo):
    detector = load(folders[kind])
    found = detector.predict(photo, threshold=0.0, trace=True)
    processor = RTDetrImageProcessorPil.from_pretrained(folders[kind])
    pixels = processor(images=photo, return_tensors="pt")["pixel_values"]
    if kind in CUBIC:  # transformers' own processor needs torchvision, which resizes so
        whole = torch.from_numpy(photo).permute(2, 0, 1)[None].float()
        cubic = functional.interpolate(whole, (zoo.SIDE, zoo.SIDE), mode="bicubic").clamp(0, 255).round() / 255
        assert (detector.prepare(photo)[0] * STD + MEAN - cubic).abs().max() < 1.5 / 255
        pixels = detector.prepare(photo)[0]
    assert torch.allclose(detector.prepare(photo)[0], pixels, atol=1e-6)
    after = DeformableDetrImageProcessorPil() if kind == "lw_detr" else processor
    with torch.no_grad():
        output = guest(kind).model(pixel_values=pixels)
    expected = after.post_process_object_detection(output, threshold=0.0, target_sizes=[photo.shape[:2]])[0]
    height, width = photo.shape[:2]
    boxes = expected["boxes"].clamp(min=0).minimum(torch.tensor([width, height, width, height]))
    assert np.abs(found.scores - expected["scores"].numpy()).max() < 1e-5
    assert (found.labels == expected["labels"].numpy()).all()
    assert np.abs(found.boxes - boxes.numpy()).max() < 0.01
    assert found.class_names == tuple(f"LABEL_{index}" for index in range(5))


@pytest.mark.parametrize("kind", TITLES)
def test_a_trace_has_boxes_and_logits_after_every_layer(folders, kind, photo):
    detector = load(folders[kind])
    trace = detector.predict(photo, trace="light").trace
    with torch.no_grad():
        output = guest(kind).model(pixel_values=detector.prepare(photo)[0])
    assert trace.logits.shape == (2, 7, 5)
    assert trace.boxes.shape == (3, 7, 4)
    assert torch.allclose(trace.logits[-1], output.logits[0], atol=1e-5)
    assert torch.allclose(trace.boxes[-1], output.pred_boxes[0], atol=1e-5)
    assert torch.allclose(trace.boxes[0], trace.steps[0].reference_points[:, 0])
    if detector.config.box_refine:
        assert torch.allclose(trace.boxes[1], trace.steps[1].reference_points[:, 0])
    assert not torch.allclose(trace.logits[0], trace.logits[1], atol=1e-3)
    assert trace.rebuild_error() < 1e-5


@pytest.mark.parametrize("kind", ["d_fine", "deimv2"])
def test_the_scores_between_are_those_of_training(kind):
    """In training the model itself computes them, from every layer; its frozen batch norms make that the same forward pass."""
    model = guest(kind)
    detector = zoo_detector(kind)
    trace = detector.predict(np.zeros((zoo.SIDE, zoo.SIDE, 3), dtype=np.uint8), trace=True).trace
    decoder = model.model.model.decoder
    decoder.training = True
    try:
        with torch.no_grad():
            output = model.model(pixel_values=detector.prepare(np.zeros((zoo.SIDE, zoo.SIDE, 3), dtype=np.uint8))[0])
    finally:
        decoder.training = False
    assert torch.allclose(trace.logits, output.intermediate_logits[0, 1:], atol=1e-5)  # the first is before its correction


def zoo_detector(kind: str):
    from litedetr.guests.detector import GuestConfig, GuestDetector

    names = tuple(guest(kind).model.config.id2label.values())
    return GuestDetector(guest(kind).model, GuestConfig(kind, names, 4, 2, (zoo.SIDE, zoo.SIDE)))


def test_its_cost_is_counted_layer_by_layer(folders):
    cost = load(folders["rt_detr"]).cost((zoo.SIDE, zoo.SIDE))
    assert cost.total == pytest.approx(cost.backbone + cost.decoder)
    d, tokens, queries = 32, 64 + 16 + 4, 7
    # Per layer: all tokens' values; the queries' self-attention (4), output (1) and feed-forward (2); 3 numbers for each point.
    layer = d * d * (tokens + queries * (4 + 1 + 2)) + queries * d * (4 * 3 * 4) * 3
    assert cost.decoder == pytest.approx(2 * layer / 1e9, rel=1e-6)


def test_this_projects_own_folders_load_as_before():
    assert isinstance(load("embedded"), Detector)


def broken(folder: Path, tmp_path: Path, file: str = "config.json", **changes) -> Path:
    """A copy of a folder with other settings."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    values = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(values | changes))
    return copy


@pytest.mark.parametrize(
    ("file", "changes", "sentence"),
    [
        ("config.json", {"model_type": "detr"}, "got the type 'detr'"),
        ("config.json", {"backbone": "resnet50"}, "got the name of another model"),
        ("config.json", {"use_timm_backbone": True}, "got the name of another model"),
        ("config.json", {"decoder_layers": 10**6}, "expected at most 1000 layers"),
        ("config.json", {"decoder_layers": 3}, "expected weights that fit the model exactly, got"),
        ("config.json", {"d_model": 64}, "Nothing was loaded|that it cannot"),
        ("config.json", {"d_model": 10**7}, "got one that it cannot|of at most"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 800}}, 'expected a "size" with a height and a width'),
        ("preprocessor_config.json", {"size": {"height": 10**5, "width": 64}}, 'expected a "size" with a height and a width'),
        ("preprocessor_config.json", {"image_std": [0, 1, 1]}, "expected three numbers as image_mean and as image_std"),
    ],
)
def test_what_fits_no_model_is_refused_in_a_sentence(folders, tmp_path, file, changes, sentence):
    folder = broken(folders["rt_detr_v2"], tmp_path, file, **changes)
    with pytest.raises(WeightsError, match=sentence) as refused:
        load(folder, limits=Limits())
    assert str(tmp_path) not in str(refused.value)


def test_a_pickle_is_not_read(folders, tmp_path):
    folder = broken(folders["rt_detr"], tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(guest("rt_detr").model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"expected tensors in model\.safetensors"):
        load(folder)


def test_code_in_a_folder_is_not_run(folders, tmp_path):
    folder = broken(folders["rt_detr"], tmp_path, auto_map={"AutoModelForObjectDetection": "model.Own"})
    (folder / "model.py").write_text("raise AssertionError('this was run')")
    assert load(folder).config.title == "RT-DETR"


def test_limits_hold(folders):
    with pytest.raises(WeightsError, match="expected a model of at most 0 MB"):
        load(folders["d_fine"], limits=Limits(file_bytes=1000))
    with pytest.raises(WeightsError, match="GMACs a photo"):
        load(folders["d_fine"], limits=Limits(gmacs=1e-6))


def test_without_transformers_it_says_what_to_install(folders):
    code = f"""
import sys
from litedetr.guests.folder import load
assert "transformers" not in sys.modules  # nothing imports it before it is needed
sys.modules["transformers"] = None
try:
    load({str(folders["rt_detr"])!r})
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "requirements-guests.txt" in done.stdout
