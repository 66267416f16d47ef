"""A new backbone is a file of its own and a line in the list: everything else finds it."""

import sys
from types import ModuleType

import numpy as np
import torch
from torch import nn

from litedetr import Detector, config
from litedetr.backbones import Backbone, backbone_of
from litedetr.config import preset
from litedetr.cost import gmacs
from tests.pictures import scene


class Toy(nn.Module):
    channels = (8, 8, 8)

    def __init__(self):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, 8, stride, stride) for channels, stride in ((3, 8), (8, 2), (8, 2)))

    def forward(self, pixels):
        maps = [pixels]
        for convolution in self.convolutions:
            maps.append(convolution(maps[-1]))
        return maps[1:]


def test_a_new_one(monkeypatch, tmp_path):
    file = ModuleType("litedetr.backbones.toy")
    file.BACKBONE = Backbone("Toy", build=lambda config: Toy())
    monkeypatch.setitem(sys.modules, file.__name__, file)
    monkeypatch.setitem(config.BACKBONES, "toy_small", "toy")
    changes = {"width": 32, "queries": 9, "decoder_layers": 1, "short_side": 128, "long_side": 128}
    small = preset("lite-dino-mobilenet", backbone="toy_small", **changes)
    detector, photo = Detector(small), scene(80, 60)
    detector.save_pretrained(tmp_path)
    expected = detector.predict(photo, 0.0)
    for other in (Detector.from_pretrained(tmp_path), detector.optimize("float32")):
        np.testing.assert_allclose(other.predict(photo, 0.0).scores, expected.scores, atol=1e-5)
    macs = 8 * 8 * 8 * 3 * 64 + 4 * 4 * 8 * 8 * 4 + 2 * 2 * 8 * 8 * 4
    assert gmacs(small, (64, 64)).backbone * 1e9 == macs
    assert backbone_of(small).title == "Toy"


def test_each_says_what_it_is():
    for name in config.BACKBONES:
        kind = backbone_of(preset("lite-dino-mobilenet", backbone=name))
        with torch.device("meta"):
            built = kind.build(preset("lite-dino-mobilenet", backbone=name, backbone_width=kind.width))
            maps = built(torch.empty(1, 3, 64, 96))
        assert [tuple(level.shape[1:]) for level in maps] == [
            (channels, 64 // stride, 96 // stride) for channels, stride in zip(built.channels, (8, 16, 32), strict=True)
        ]
