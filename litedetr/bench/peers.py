"""What one would take instead: RT-DETR and D-FINE of transformers, in PyTorch, ONNX Runtime and OpenVINO.

Built from their configurations with random weights; nothing is downloaded. The packages are in requirements-bench.txt.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from litedetr.ops.library import cache_folder
from litedetr.timing import Contestant

INSTALL = "pip install -r requirements-bench.txt"

OPSET = 17  # has grid sampling


class Unavailable(Exception):
    """A contestant that cannot run here; the message says why, or what to do."""


def rt_detr_r50() -> nn.Module:
    """RT-DETR-R50 (ResNet-50-vd, 6 decoder layers, 300 queries) for 80 classes: 42.9 M parameters, 68.6 GMACs at 640."""
    transformers = need("transformers")
    backbone = transformers.RTDetrResNetConfig(out_features=["stage2", "stage3", "stage4"])
    return build(transformers.RTDetrForObjectDetection, transformers.RTDetrConfig(backbone_config=backbone, num_labels=80))


def d_fine_n() -> nn.Module:
    """D-FINE-N (HGNetV2-B0, strides 16 and 32, 3 decoder layers) for 80 classes: 3.8 M parameters, 3.6 GMACs at 640."""
    transformers = need("transformers")
    backbone = transformers.HGNetV2Config(
        stem_channels=[3, 16, 16],
        stage_in_channels=[16, 64, 256, 512],
        stage_mid_channels=[16, 32, 64, 128],
        stage_out_channels=[64, 256, 512, 1024],
        stage_num_blocks=[1, 1, 2, 1],
        stage_numb_of_layers=[3, 3, 3, 3],
        hidden_sizes=[64, 256, 512, 1024],
        depths=[1, 1, 2, 1],
        use_learnable_affine_block=True,
        out_features=["stage3", "stage4"],
    )
    config = transformers.DFineConfig(
        backbone_config=backbone,
        encoder_in_channels=[512, 1024],
        feat_strides=[16, 32],
        encoder_hidden_dim=128,
        encode_proj_layers=[1],
        encoder_ffn_dim=512,
        hidden_expansion=0.34,
        depth_mult=0.5,
        d_model=128,
        decoder_in_channels=[128, 128],
        decoder_ffn_dim=512,
        num_feature_levels=2,
        decoder_n_points=[6, 6],
        decoder_layers=3,
        num_labels=80,
    )
    return build(transformers.DFineForObjectDetection, config)


def build(kind: Callable[..., nn.Module], config) -> nn.Module:
    """A model of transformers with the same random weights every time, ready for inference."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(config).eval()


def in_pytorch(model: nn.Module, pixels: Tensor) -> Contestant:
    """Eager PyTorch; a run gives (logits, boxes)."""
    outputs = _Outputs(model)

    def run() -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            return outputs(pixels)

    return run


def in_onnxruntime(model: nn.Module, pixels: Tensor, threads: int) -> Contestant:
    """ONNX Runtime in float32 with its default optimisations; a run gives [logits, boxes] as arrays."""
    onnxruntime = need("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(onnx_file(model, pixels)), options, providers=["CPUExecutionProvider"])
    feed = {"pixels": pixels.numpy()}
    return lambda: session.run(None, feed)


def in_openvino(model: nn.Module, pixels: Tensor, threads: int, precision: str) -> Contestant:
    """OpenVINO, tuned for latency, in precision "f32" or "bf16"; a run gives [logits, boxes] as arrays."""
    openvino = need("openvino")
    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # would tie the other contestants' threads to a core, too
    }
    request = core.compile_model(core.read_model(onnx_file(model, pixels)), "CPU", settings).create_infer_request()
    feed = {"pixels": pixels.numpy()}
    return lambda: list(request.infer(feed).values())


def onnx_file(model: nn.Module, pixels: Tensor) -> Path:
    """The model as an ONNX file for inputs of this size, exported once into the cache folder."""
    need("onnx")
    file = onnx_path(model, pixels)
    if not file.is_file():
        file.parent.mkdir(exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}.unfinished")
        try:
            with _quiet():
                torch.onnx.export(
                    _Outputs(model), (pixels,), str(unfinished), dynamo=False, opset_version=OPSET,
                    input_names=["pixels"], output_names=["logits", "boxes"],
                )  # fmt: skip
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)
    return file


def onnx_path(model: nn.Module, pixels: Tensor) -> Path:
    """Where that file is or will be: a name for the model's configuration, its weights, the size and the exporter's versions."""
    weights = sum(float(parameter.detach().double().abs().sum()) for parameter in model.parameters())
    parts = (
        torch.__version__,
        need("transformers").__version__,
        OPSET,
        model.config.to_json_string(),
        tuple(pixels.shape),
        weights,
    )
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return cache_folder() / "bench" / f"{type(model).__name__}-{key}.onnx"


class _Outputs(nn.Module):
    """A detector of transformers as a function of pixels alone."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(pixel_values=pixels)
        return output.logits, output.pred_boxes


def need(package: str) -> ModuleType:
    """Imports a package of requirements-bench.txt; `Unavailable` where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise Unavailable(f"not measured: {INSTALL}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's many warnings about shapes that it takes as constants, which they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
