"""The other side is what it says it is: sizes of the published models, and the same answers in every runtime."""

import sys

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from litedetr.bench import peers
from tests.bench import tiny


@pytest.mark.parametrize(
    ("make", "device", "millions", "gmacs"), [(peers.rt_detr_r50, "meta", 42.9, 68.6), (peers.d_fine_n, "cpu", 3.8, 3.6)]
)
def test_sizes_of_the_published_models(make, device, millions, gmacs):
    pytest.importorskip("transformers")
    with torch.device(device):  # "meta" counts without computing, where the model allows it
        model, pixels = make(), torch.zeros(1, 3, 640, 640)
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            model(pixel_values=pixels)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.01)


@pytest.fixture
def in_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LITEDETR_CACHE", str(tmp_path))
    return tmp_path / "bench"


@pytest.mark.parametrize("make", [tiny.rt_detr, tiny.d_fine])
def test_every_runtime_gives_pytorchs_answer(make, in_cache):
    for package in ("transformers", "onnx", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    pixels, model = torch.randn(1, 3, 64, 96), make()
    expected = torch.cat(peers.in_pytorch(model, pixels)(), -1)[0]  # every token is a query: only their order may differ
    assert float(expected.std(0).max()) > 0.05
    for run in (peers.in_onnxruntime(model, pixels, 1), peers.in_openvino(model, pixels, 1, "f32")):
        found = torch.cat([torch.tensor(np.array(part)) for part in run()], -1)[0]
        distances = (expected[:, None] - found).abs().amax(-1)
        assert float(distances.amin(0).max()) < 1e-4
        assert float(distances.amin(1).max()) < 1e-4
    assert [file.suffix for file in in_cache.iterdir()] == [".onnx"], "exported once, nothing unfinished left"


def test_the_file_is_of_this_model_and_size(in_cache):
    pytest.importorskip("transformers")
    model, pixels = tiny.rt_detr(), torch.randn(1, 3, 64, 96)
    file = peers.onnx_path(model, pixels)
    assert file.parent == in_cache
    assert file == peers.onnx_path(tiny.rt_detr(), torch.randn(1, 3, 64, 96)), "the same weights every time"
    assert file != peers.onnx_path(model, torch.randn(1, 3, 64, 64))
    assert file != peers.onnx_path(tiny.d_fine(), pixels)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert file != peers.onnx_path(model, pixels)


def test_a_missing_package_says_how_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what makes `import onnxruntime` fail
    with pytest.raises(peers.Unavailable, match=r"pip install -r requirements-bench\.txt"):
        peers.in_onnxruntime(tiny.rt_detr(), torch.randn(1, 3, 64, 64), 1)
