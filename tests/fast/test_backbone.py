"""Backbones and neck for inference: the plain ones' results, whatever the size, batch, threads and way to compute."""

import copy

import pytest
import torch
from torch import Tensor, nn

from litedetr.backbones.mobilenet import MobileNetV2
from litedetr.backbones.nanodet import NanoDetG
from litedetr.backbones.resnet import ResNet50
from litedetr.backbones.swin import SwinTransformer
from litedetr.fast import convolution, dense, strips
from litedetr.fast.backbone import fast_backbone
from litedetr.fast.convolution import FusedConvolution, SameConvolution, fusing_works
from litedetr.fast.neck import fast_neck
from litedetr.fast.strips import Chain, MaxPool
from litedetr.pyramid import PyramidNeck

KINDS = {
    "resnet": lambda: ResNet50(8),
    "mobilenet": MobileNetV2,
    "nanodet": NanoDetG,
    "swin": lambda: SwinTransformer(12, (2, 2, 2, 2), (1, 1, 2, 2), window=4),
}
DTYPES = (torch.float32, torch.bfloat16)
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Of the largest value in a map."""


def build(kind: str) -> nn.Module:
    """With lively biases, and statistics as if it were trained."""
    random = torch.Generator().manual_seed(0)
    net = KINDS[kind]().eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=random)
    for name, value in (*net.named_parameters(), *net.named_buffers()):
        if value.dim() == 1:
            positive = any(part in name for part in ("norm", "bn", "var"))
            value.data.uniform_(0.5 if positive else -0.5, 1.0 if positive else 0.5, generator=random)
    return net


def picture(*size: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def assert_same_maps(found: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    assert [m.shape for m in found] == [m.shape for m in expected]
    for got, wanted in zip(found, expected, strict=True):
        assert got.dtype == dtype
        difference = (got.float() - wanted).abs().max() / wanted.abs().max()
        assert difference < TOLERANCE[dtype], f"off by {difference:.1e} of the largest value"


@pytest.fixture(params=["fused", "public"])
def way(request, monkeypatch) -> str:
    """With oneDNN's fused operators, and without."""
    if request.param == "public":
        monkeypatch.setattr(convolution, "fusing_works", lambda dtype: False)
        monkeypatch.setattr(dense, "packing_works", lambda dtype: False)
    elif not fusing_works(torch.float32):
        pytest.skip("no fused convolutions in this build of PyTorch")
    return request.param


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_maps_agree_at_any_size(kind, dtype, way):
    net = build(kind)
    fast = fast_backbone(net, dtype)
    assert all(part.fused == (way == "fused") for part in fast.modules() if isinstance(part, FusedConvolution))
    for pixels in (picture(64, 96), picture(57, 75, batch=2), picture(58, 33), picture(64, 96)):  # and back
        before = pixels.clone()
        with torch.inference_mode():
            assert_same_maps(fast(pixels), net(pixels), dtype)
        assert torch.equal(pixels, before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["resnet", "mobilenet", "nanodet"])
def test_strips_agree_with_the_whole(kind, dtype, way, monkeypatch):
    net = build(kind)
    fast = fast_backbone(net, dtype)
    monkeypatch.setattr(strips, "LARGE", 0)
    monkeypatch.setattr(strips, "CACHE", 1 << 12)
    for pixels in (picture(96, 64), picture(75, 42, batch=2)):
        with torch.inference_mode():
            assert_same_maps(fast(pixels), net(pixels), dtype)


@pytest.mark.parametrize("height", [9, 10, 23, 24])
@pytest.mark.parametrize("rows", [1 << 9, 1 << 11])
def test_every_row_of_a_strip_is_the_whole_s(height, rows, monkeypatch):
    random = torch.Generator().manual_seed(0)
    weights = [torch.randn(4, 3, 7, 7, generator=random), torch.randn(4, 4, 1, 1, generator=random)]
    stem = FusedConvolution(weights[0], None, torch.float32, stride=2, padding=3, activation="relu")
    depthwise = SameConvolution(nn.Conv2d(4, 4, 3, stride=2, groups=4), torch.float32)
    chain = Chain(stem, MaxPool(4), depthwise, FusedConvolution(weights[1], torch.randn(4, generator=random), torch.float32))
    x = picture(2 * height, 24, batch=2).contiguous(memory_format=torch.channels_last)
    whole = chain(x)
    monkeypatch.setattr(strips, "LARGE", 0)
    monkeypatch.setattr(strips, "CACHE", rows)
    torch.testing.assert_close(chain(x), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_original_is_neither_changed_nor_read_again(kind):
    net = build(kind)
    before = copy.deepcopy(net.state_dict())
    fast = fast_backbone(net, torch.float32)
    with torch.inference_mode():
        first = [m.clone() for m in fast(picture(64, 64))]
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        for value in (*net.parameters(), *net.buffers()):
            value.zero_()
        assert all(torch.equal(a, b) for a, b in zip(first, fast(picture(64, 64)), strict=True))
    assert not any(parameter.requires_grad for parameter in fast.parameters())


@pytest.mark.parametrize("kind", ["resnet", "mobilenet", "nanodet"])
def test_a_copy_after_use_agrees(kind):
    fast = fast_backbone(build(kind), torch.float32)
    expected = fast(picture(64, 64))
    assert_same_maps(copy.deepcopy(fast)(picture(64, 64)), expected, torch.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_threads_and_gradient_mode_do_not_matter(kind):
    fast = fast_backbone(build(kind), torch.float32)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(fast(picture(96, 96)))
    finally:
        torch.set_num_threads(threads)
    assert not any(m.requires_grad for maps in results for m in maps)
    assert_same_maps(results[1], results[0], torch.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_photo_does_not_see_its_neighbour_in_the_batch(kind):
    fast = fast_backbone(build(kind), torch.float32)
    pixels = picture(64, 64, batch=2)
    pixels[1] *= 100
    for both, alone in zip(fast(pixels), fast(pixels[:1].contiguous()), strict=True):
        torch.testing.assert_close(both[:1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("levels", [3, 4, 5])
def test_neck(levels, dtype, way):
    torch.manual_seed(0)
    neck = PyramidNeck((16, 24, 32), 64, levels).eval()
    for projection, norm in neck.projections:
        for value in (projection.bias, norm.weight, norm.bias):
            nn.init.uniform_(value)
    fast = fast_neck(neck, dtype)
    mask = torch.zeros(2, 80, 96, dtype=torch.bool)
    mask[1, 50:], mask[0, :, 90:] = True, True
    for given in (None, mask, None):
        features = [torch.randn(2, c, -(-80 // s), 96 // s) for c, s in ((16, 8), (24, 16), (32, 32))]
        with torch.inference_mode():
            found, expected = fast(features, given), neck(features, given)
        assert found.shapes == expected.shapes
        assert found.tokens.dtype == torch.float32  # whatever the convolutions compute in
        assert_same_maps([found.tokens.to(dtype)], [expected.tokens], dtype)
        for name in ("positions", "mask", "valid_ratios", "reference_points"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
