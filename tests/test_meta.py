"""Shapes without values, and without the compiler."""

import subprocess
import sys

import torch

from litedetr import Detector
from litedetr.config import preset, presets
from litedetr.meta import OnMeta
from litedetr.network import Network


def test_shapes_are_those_of_a_network_with_values():
    for name in ("lite-dino-mobilenet", "lite-h-detr-swin-t-h3l1-2x3", "lite-deformable-detr-r50-h3l1-2x3"):
        assert name in presets()
        with OnMeta():
            shapes = {key: (value.shape, value.dtype) for key, value in Network(preset(name)).state_dict().items()}
        assert shapes == {key: (value.shape, value.dtype) for key, value in Network(preset(name)).state_dict().items()}


def test_nothing_built_inside_has_values_and_what_is_outside_keeps_its_own():
    weight = torch.ones(3)
    with OnMeta():
        layer = torch.nn.Linear(3, 2)
        weight.mul_(2)
    assert layer.weight.is_meta
    assert layer.bias.is_meta
    assert weight.tolist() == [2, 2, 2]


def test_loading_a_detector_imports_no_compiler():
    assert Detector.from_pretrained("embedded").config.family == "dino"
    code = "import sys, litedetr; litedetr.Detector.from_pretrained('embedded'); print('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
