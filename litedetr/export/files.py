"""The files themselves, and what is written into them besides the graph."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import litedetr
from litedetr.config import DetectorConfig
from litedetr.export.graph import Size
from litedetr.runtime import GROUP


def about(config: DetectorConfig, sampling: str, size: Size | None, points: Sequence[str], half: bool) -> dict[str, str]:
    """What the file says of itself, all of it text: for `litedetr.runtime`, and for whoever feeds the graph by other means."""
    preprocessing = {
        "color": "RGB", "layout": "NCHW", "range": "0..255, then (x - mean) / std", "mean": config.pixel_mean,
        "std": config.pixel_std, "resize": "area where it shrinks, else bilinear", "size": size, "short_side": config.short_side,
        "long_side": config.long_side, "size_divisor": config.size_divisor,
    }  # fmt: skip
    return {
        "litedetr": litedetr.__version__,
        "config": json.dumps(config.to_dict(), ensure_ascii=False),
        "preprocessing": json.dumps(preprocessing),
        "class_names": json.dumps(config.names, ensure_ascii=False),
        "schedule": config.schedule,
        "sampling": sampling,
        "points": json.dumps(list(points)),
        "weights": "float16" if half else "float32",
    }


def write(graph: Path, out: Path, texts: dict[str, str], half: bool) -> None:
    """The traced graph, with texts about it, as the file for its runtime.

    Raises:
        ValueError: OpenVINO is not installed.
    """
    if out.suffix == ".onnx":
        import onnx

        model = onnx.load(graph)
        onnx.helper.set_model_props(model, texts)
        onnx.save(model, out)
        return
    if importlib.util.find_spec("openvino") is None:
        raise ValueError("expected the package openvino, which is not installed: pip install litedetr[export]")
    import openvino

    model = openvino.Core().read_model(graph)
    for name, text in texts.items():
        model.set_rt_info(text, [GROUP, name])
    openvino.save_model(model, out, compress_to_fp16=half)
