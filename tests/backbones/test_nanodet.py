"""NanoDet-g's backbone and its file, against the published graph written down once more, on BGR pictures and random weights."""

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from litedetr.backbones.nanodet import NanoDetG, load_nanodet_backbone, read_nanodet
from litedetr.config import preset

BLOCKS = (1, 2, 2, 3)


def published() -> dict[str, Tensor]:
    """Random weights under the published file's names."""
    random = torch.Generator().manual_seed(0)
    state = {}

    def convolution(name: str, inputs: int, outputs: int, kernel: int = 3) -> None:
        spread = (2 / (inputs * kernel**2)) ** 0.5
        state[f"{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=random) * spread
        state[f"{name}.bias"] = torch.randn(outputs, generator=random) * 0.1

    convolution("backbone.stem.conv", 3, 32)
    for stage, blocks in enumerate(BLOCKS):
        channels, name = 32 * 2**stage, f"backbone.stages.{stage}"
        convolution(f"{name}.in_conv", channels, channels)
        for block in range(blocks):
            convolution(f"{name}.blocks.{block}.in_conv", channels, channels // 2)
            convolution(f"{name}.blocks.{block}.mid_conv", channels // 2, channels // 2)
        convolution(f"{name}.out_conv", channels, channels)
    for level in range(3):
        convolution(f"pan.laterals.{level}", 128 * 2**level, 128, kernel=1)
        convolution(f"head.convs.{level}", 128, 128)
        convolution(f"head.outputs.{level}", 128, 124, kernel=1)
    return state


def published_forward(state: dict[str, Tensor], bgr: Tensor) -> list[Tensor]:
    """(B, 3, H, W) BGR in 0..255 -> what the last 1x1 convolutions read."""

    def leaky(name: str, x: Tensor, stride: int = 1) -> Tensor:
        return F.leaky_relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, 1), 0.1)

    def grown(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, size=like.shape[2:], mode="bilinear")

    mean, deviation = torch.tensor([103.53, 116.28, 123.675]), torch.tensor([57.375, 57.12, 58.395])
    x = leaky("backbone.stem.conv", (bgr - mean[:, None, None]) / deviation[:, None, None], stride=2)
    x = F.max_pool2d(x, 3, 2, 1)
    stages = []
    for stage, blocks in enumerate(BLOCKS):
        name = f"backbone.stages.{stage}"
        a = leaky(f"{name}.in_conv", x, stride=2 if stage else 1)
        y = a
        for block in range(blocks):
            c = leaky(f"{name}.blocks.{block}.in_conv", y)
            y = torch.cat((leaky(f"{name}.blocks.{block}.mid_conv", c), c), 1)
        x = torch.cat((leaky(f"{name}.out_conv", y), a), 1)
        stages.append(x)
    laterals = [(state[f"pan.laterals.{i}.weight"], state[f"pan.laterals.{i}.bias"]) for i in range(3)]
    p0, p1, p2 = (F.conv2d(x, *lateral) for x, lateral in zip(stages[1:], laterals, strict=True))
    p1 = p1 + grown(p2, p1)
    p0 = p0 + grown(p1, p0)
    p1 = p1 + grown(p0, p1)
    p2 = p2 + grown(p1, p2)
    return [leaky(f"head.convs.{i}", p) for i, p in enumerate((p0, p1, p2))]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("nanodet") / "nanodet_g.safetensors"
    save_file(published(), path)
    return path


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (70, 41)])
def test_the_maps_are_the_published_ones(file, size):
    rgb = torch.randint(0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(1)).float()
    config, backbone = preset("lite-dino-nanodet-g"), NanoDetG().eval()
    load_nanodet_backbone(backbone, file)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (config.pixel_mean, config.pixel_std))
    with torch.no_grad():
        found, expected = backbone((rgb - mean) / deviation), published_forward(published(), rgb.flip(1))
    for level, (got, wanted) in enumerate(zip(found, expected, strict=True)):
        stride = 8 * 2**level
        assert got.shape == (2, 128, -(-size[0] // stride), -(-size[1] // stride))
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_the_file_is_read_whole(file):
    state, head = read_nanodet(file)
    assert len(state) + len(head) == len(published())
    assert sorted(head) == [f"{level}.{name}" for level in range(3) for name in ("bias", "weight")]
    assert torch.equal(head["1.weight"], published()["head.outputs.1.weight"])
    assert torch.equal(state["stem.weight"][:, 0], published()["backbone.stem.conv.weight"][:, 2]), "red comes first"


@pytest.mark.parametrize("change", ["missing", "unexpected", "misshaped", "head"])
def test_another_file_is_refused(change, tmp_path):
    state = published()
    if change == "missing":
        del state["pan.laterals.1.bias"]
    elif change == "unexpected":
        state["backbone.stages.4.in_conv.bias"] = torch.zeros(3)
    elif change == "misshaped":
        state["backbone.stem.conv.weight"] = torch.zeros(32, 3, 5, 5)
    else:
        del state["head.outputs.0.bias"]
    save_file(state, tmp_path / "other.safetensors")
    backbone = NanoDetG()
    before = backbone.stem.weight.clone()
    with pytest.raises(ValueError, match=r"expected NanoDet-g's weights .* got 1 missing, unexpected or misshaped"):
        load_nanodet_backbone(backbone, tmp_path / "other.safetensors")
    assert torch.equal(backbone.stem.weight, before)


def test_a_frozen_stem_learns_nothing():
    backbone = NanoDetG()
    backbone.freeze_stem()
    sum(level.sum() for level in backbone(torch.randn(1, 3, 64, 64))).backward()
    frozen = {name.split(".")[0] for name, value in backbone.named_parameters() if value.grad is None}
    assert frozen == {"stem", "stages"}
    assert all(value.grad is not None for value in backbone.stages[1:].parameters())
