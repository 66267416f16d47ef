"""Exported detectors give what PyTorch gives, in both runtimes, for every kind of model, at sizes that were not traced."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from litedetr import Detector, ops
from litedetr.cli import main
from litedetr.export import export, verdict
from litedetr.export.files import about, write
from litedetr.export.graph import to_onnx
from litedetr.export.verdict import agreement, judge
from litedetr.runtime import Exported
from tests.small_models import small

ATTENTION = {"GridSample", "GatherElements", "GatherND"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Exported:
    """The embedded model in ONNX Runtime, with points, by the command."""
    file = tmp_path_factory.mktemp("export") / "embedded.onnx"
    assert main(["export", "embedded", "--to", "onnx", "--out", str(file), "--points"]) == 0
    return Exported(file, threads=1)


def tiny(preset: str) -> Detector:
    """One encoder block and one decoder layer: a short graph."""
    schedule = "H3L1-(2+1)x1" if "lite" in preset else "H4L0-(1+1)x1"
    return small(preset, schedule=schedule, decoder_layers=1, queries=70)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny("lite-dino-mobilenet").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def embedded() -> Detector:
    return Detector.from_pretrained("embedded")


def test_the_embedded_model_finds_the_same(exported, embedded, capsys):
    photos = [f"assets/examples/{name}.jpg" for name in ("cat", "motorcycle", "astronaut", "motorcycle")]
    for found, expected in zip(exported.predict_batch(photos, 0.1), embedded.predict_batch(photos, 0.1), strict=True):
        assert found.names == expected.names
        assert found.photo_size == expected.photo_size
        assert np.abs(found.boxes - expected.boxes).max() < 0.5
        assert np.abs(found.scores - expected.scores).max() < 1e-3
    assert exported.predict(photos[0]).names == embedded.predict(photos[0]).names == ["cat"]
    assert exported.verdict["ok"] is True
    assert exported.verdict["photos"] == 3
    assert exported.verdict["agreement"]["box_pixels"] < 0.5


def test_the_points_are_those_of_a_trace(exported, embedded):
    last = f"decoder {embedded.config.decoder_layers}"
    assert exported.points == ["B3 all", last]
    pixels, _ = exported.prepare(np.full((300, 400, 3), 90, np.uint8))
    outputs = exported.outputs(pixels)
    with ops.use("reference"):
        trace = embedded.predict(np.full((300, 400, 3), 90, np.uint8), trace=True).trace
    step = trace.step("B3 all")
    np.testing.assert_allclose(outputs["B3 all.locations"][0], step.locations, atol=1e-4)
    np.testing.assert_allclose(outputs["B3 all.weights"][0], step.weights, atol=1e-4)
    assert outputs[f"{last}.weights"].shape == (1, *trace.step(last).weights.shape)
    np.testing.assert_allclose(outputs[f"{last}.weights"].sum((-1, -2)), 1, atol=1e-5)


def test_the_file_says_what_it_takes(exported, embedded):
    model = onnx.load(exported.file)
    onnx.checker.check_model(model)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    sides = [[side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim] for value in model.graph.input]
    assert sides == [["batch", 3, "height", "width"]]
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(said["class_names"])[15] == "cat"
    assert json.loads(said["preprocessing"])["mean"] == list(embedded.config.pixel_mean)
    assert said["schedule"] == embedded.config.schedule


# What differs between presets: the attention, the backbone, the family, and whether queries are chosen.
@pytest.mark.parametrize(
    ("preset", "sampling", "ending"),
    [
        ("lite-dino-r50-h3l1-2x3", "gather", "onnx"),
        ("lite-dino-swin-t-h2l2-2x3", "grid_sample", "onnx"),
        ("deformable-detr-r50", "grid_sample", "xml"),
        ("lite-h-detr-r50-h3l1-6x1", "gather", "onnx"),
    ],
)
@torch.inference_mode()
def test_every_kind_of_model_at_any_size(preset, sampling, ending, tmp_path):
    detector = tiny(preset)
    for head in (*detector.heads.boxes, *detector.heads.classes):
        layer = head.layers[-1] if hasattr(head, "layers") else head
        layer.weight.normal_(std=0.3)
    graph, file = tmp_path / "graph.onnx", tmp_path / f"model.{ending}"
    to_onnx(detector, graph, sampling, None, ())
    write(graph, file, about(detector.config, sampling, None, (), False), False)
    operators = {node.op_type for node in onnx.load(graph).graph.node}
    assert operators & ATTENTION <= ({"GridSample", "GatherElements"} if sampling == "grid_sample" else {"GatherElements"})
    exported = Exported(file, threads=1)
    for batch, height, width in ((1, 96, 128), (2, 133, 75)):
        pixels = torch.rand(batch, 3, height, width)
        with ops.use("reference"):
            expected = detector(pixels)
        outputs = exported.outputs(pixels.numpy())
        for index in range(batch):
            sides = [
                (logits[index], boxes[index])
                for logits, boxes in ((expected.logits.numpy(), expected.boxes.numpy()), (outputs["logits"], outputs["boxes"]))
            ]
            found = agreement([(*sides, (height, width))])
            assert found.box_pixels < 0.05
            assert found.score < 1e-4


def test_openvino_with_half_the_weights_and_a_fixed_size(tiny_folder, tmp_path, capsys, photo):
    file = tmp_path / "half.xml"
    assert main(["export", str(tiny_folder), "--out", str(file), "--size", "96x160", "--half"]) == 0
    assert file.with_suffix(".bin").stat().st_size < 0.6 * (tiny_folder / "model.safetensors").stat().st_size
    model = Exported(file, threads=1)
    assert model.prepare(photo)[0].shape == (1, 3, 96, 160)
    assert model.predict(photo, 0.0).photo_size == (150, 200)
    assert model.verdict["ok"] is None
    assert "OpenVINO against PyTorch on 3 photos: boxes within" in capsys.readouterr().out


def test_a_file_that_differs_fails_the_command_and_says_so(tiny_folder, tmp_path, capsys, monkeypatch):
    file = tmp_path / "model.onnx"
    monkeypatch.setattr(verdict, "BOX_PIXELS", 1e-12)
    assert main(["export", str(tiny_folder), "--out", str(file), "--size", "96"]) == 1
    assert "DIFFERENT (at most 1e-12 px and 0.001 are allowed)" in capsys.readouterr().out
    assert Exported(file).verdict["ok"] is False
    monkeypatch.undo()
    own = Detector.from_pretrained(tiny_folder)
    assert judge(own, file).ok is True
    own.heads.classes[0].bias.data += 0.1
    assert judge(own, file).ok is False, "another model's file"


@torch.inference_mode()
def test_what_a_tie_leaves_open_is_no_difference(tmp_path, monkeypatch):
    detector = tiny("lite-dino-r50-h3l1-2x3")
    detector.selection.class_head.weight.zero_()  # every token has the same score, and every rank a content of its own
    detector.selection.content.weight.normal_()
    detector.heads.classes[0].weight.normal_()
    file = tmp_path / "ties.onnx"
    found = export(detector, file, size=(96, 128))
    assert found.ok is True
    assert found.ties == Exported(file).verdict["ties"] > 0
    assert f"({found.ties} queries from other tokens of equal scores, in both)" in str(found)
    monkeypatch.setattr(verdict, "TIE", -1.0)
    assert judge(detector, file).ok is False, "PyTorch's own order gives other contents to the same tokens"


def test_folders_with_a_file_and_pictures_that_it_cannot_see(tiny_folder, tmp_path, capsys, photo):
    file, folder = tmp_path / "model.onnx", tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b"):
        Image.fromarray(photo).save(folder / f"{name}.png")
    assert main(["export", str(tiny_folder), "--out", str(file)]) == 0
    capsys.readouterr()
    arguments = ["detect", str(folder), "--threshold", "0"]
    lines = []
    for name, extra in (("file", ["--runtime", str(file)]), ("model", ["--model", str(tiny_folder)])):
        out = tmp_path / f"by-{name}.jsonl"
        assert main([*arguments, *extra, "--out", str(out)]) == 0
        lines.append(sorted(map(json.loads, out.read_text().splitlines()), key=lambda line: line["file"]))
    by_file, by_model = ([line["detections"][0]["score"] for line in found] for found in lines)
    np.testing.assert_allclose(by_file, by_model, atol=1e-3)
    capsys.readouterr()
    Image.new("RGB", (900, 10)).save(folder / "c.png")
    assert main([*arguments, "--runtime", str(file)]) == 1
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line["file"]).name for line in printed] == ["a.png", "b.png", "c.png"]
    assert printed[0]["detections"] == lines[0][0]["detections"]
    assert printed[2]["error"].startswith(
        "This picture is too narrow for the exported model, which looks for 70 objects: 900 × 10 pixels become 96 × 32."
    )


def test_what_does_not_fit_is_a_sentence(detector, tmp_path, capsys):
    for call, message in (
        (lambda: export(detector, tmp_path / "model.pt"), "expected a file ending in .onnx or .xml, got 'model.pt': the ending"),
        (lambda: export(detector, tmp_path / "model.onnx", half=True), "expected half with OpenVINO (.xml), got 'model.onnx'"),
        (lambda: export(detector, tmp_path / "m.onnx", sampling="best"), "expected the sampling grid_sample or gather, got 'b"),
        (lambda: export(detector, tmp_path / "m.onnx", points=["B9"]), "expected points of the steps B1 high, B1 all, B2 high"),
        (lambda: export(detector.optimize("float32"), tmp_path / "m.onnx"), "expected a detector as it was loaded, got an opt"),
        (lambda: Exported(tmp_path / "none.onnx"), 'expected a file that "python -m litedetr export" wrote (.onnx or .xml), got'),
    ):
        with pytest.raises(ValueError) as error:
            call()
        assert str(error.value).startswith(message)
    assert list(tmp_path.iterdir()) == []
    value = onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["pixels"], ["out"])], "other", [value], [
        onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1])])  # fmt: skip
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), tmp_path / "o.onnx")
    with pytest.raises(ValueError, match=r"got another one in o\.onnx"):
        Exported(tmp_path / "o.onnx")
    assert main(["export", "embedded", "--to", "openvino", "--out", "model.onnx"]) == 2
    assert capsys.readouterr().err == "litedetr: expected --out with the ending .xml for openvino, got model.onnx\n"

