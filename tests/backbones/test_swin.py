"""Swin against golden data, and on odd sizes."""

import pytest
import torch

from litedetr.backbones.swin import SwinTransformer, relative_position_index
from litedetr.pyramid import level_mask
from tests import golden_data as golden


@pytest.mark.parametrize("case", golden.cases("ops", "swin_backbone"))
def test_stages(case):
    config, arrays, parameters = golden.load("ops", case)
    swin = SwinTransformer(config["embed_dim"], config["depths"], config["num_heads"], config["window_size"])
    index = {name: value for name, value in parameters.items() if name.endswith("relative_position_index")}
    swin.load_state_dict({name: value for name, value in parameters.items() if name not in index})
    for value in index.values():
        assert torch.equal(value, relative_position_index(config["window_size"]))
    with torch.inference_mode():
        maps = swin(arrays["image"])
    assert tuple(m.shape[1] for m in maps) == swin.channels
    noise = config["max_abs_diff_float32_vs_float64"]
    for level, found in enumerate(maps):
        golden.assert_close(found, arrays[f"out{level}"], golden.tolerance(noise[str(level)]), f"stage {level + 1}")
        mask = level_mask(arrays["mask"], found.shape[2:], found.shape[0], found.device)
        assert torch.equal(mask, arrays[f"mask{level}"])


@pytest.mark.parametrize("size", [(1, 1), (33, 65), (57, 8)])
def test_any_size(size):
    swin = SwinTransformer(12, (1, 2, 1, 2), (1, 1, 2, 2), window=4).eval()
    with torch.no_grad():
        maps = swin(torch.randn(2, 3, *size))
    patches = [-(-side // 4) for side in size]
    for m in maps:
        patches = [-(-side // 2) for side in patches]
        assert list(m.shape[2:]) == patches
        assert m.isfinite().all()


def test_a_photo_does_not_see_its_neighbour_in_the_batch():
    swin = SwinTransformer(12, (2, 2), (1, 2), window=4).eval()
    pixels = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        assert torch.allclose(swin(pixels)[0][:1], swin(pixels[:1])[0], atol=1e-5)


def test_training_after_inference():
    swin = SwinTransformer(12, (2, 2), (1, 2), window=4)
    pixels = torch.randn(1, 3, 40, 56)
    with torch.inference_mode():
        swin.eval()(pixels)
    swin.train()(pixels)[0].square().mean().backward()
    without = {name for name, parameter in swin.named_parameters() if parameter.grad is None}
    assert without == set()
