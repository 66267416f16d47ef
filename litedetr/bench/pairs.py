"""What is compared with what, and the limit of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """Two contestants to compare: names in `Contestants`, and the limit of ours / theirs."""

    figure: str
    ours: str
    theirs: str
    limit: float | None = None


ENCODERS = (
    Pair("Lite encoder H3L1-(2+1)x3, f32 / the same with attention as published (PyTorch)", "lite", "published", 0.15),
    Pair("Lite encoder H3L1-(2+1)x3, bf16 / the same with attention as published (PyTorch), f32", "lite bf16", "published", 0.09),
    Pair("Lite encoder H3L1-(2+1)x3, f32 / the same on the reference op", "lite", "reference"),
    Pair("Lite encoder H3L1-(2+1)x3, bf16 / the same on the reference op, f32", "lite bf16", "reference"),
    Pair("Lite encoder H3L1-(2+1)x3 / full encoder, both fused, f32", "lite", "full", 0.42),
    Pair("Lite encoder H3L1-(6+1)x1 / full encoder, both fused, f32", "H3L1-(6+1)x1", "full", 0.34),
    Pair("Lite encoder H2L2-(2+1)x3 / full encoder, both fused, f32", "H2L2-(2+1)x3", "full", 0.26),
)

DETECTORS = (
    Pair("Lite-DINO-R50, f32 / RT-DETR-R50, PyTorch eager, f32", "lite", "rt-detr", 0.85),
    Pair("Lite-DINO-R50, bf16 / RT-DETR-R50, PyTorch eager, f32", "lite bf16", "rt-detr", 0.45),
    Pair("Lite-DINO-R50, bf16 / RT-DETR-R50, ONNX Runtime, f32", "lite bf16", "rt-detr onnxruntime", 0.75),
    Pair("Lite-DINO-R50, bf16 / RT-DETR-R50, OpenVINO, bf16", "lite bf16", "rt-detr openvino bf16", 1.15),
    Pair("Lite-DINO-R50, f32 / RT-DETR-R50, ONNX Runtime, f32", "lite", "rt-detr onnxruntime", 1.1),
    Pair("Lite-DINO-R50, f32 / RT-DETR-R50, OpenVINO, f32", "lite", "rt-detr openvino f32"),
)

EMBEDDED = (
    Pair("embedded model, f32 / D-FINE-N, PyTorch eager, f32", "embedded", "d-fine", 0.6),
    Pair("embedded model, bf16 / D-FINE-N, PyTorch eager, f32", "embedded bf16", "d-fine", 0.6),
    Pair("embedded model, f32 / D-FINE-N, ONNX Runtime, f32", "embedded", "d-fine onnxruntime", 1.5),
    Pair("embedded model, f32 / D-FINE-N, OpenVINO, f32", "embedded", "d-fine openvino f32"),
    Pair("embedded model, bf16 / D-FINE-N, OpenVINO, bf16", "embedded bf16", "d-fine openvino bf16"),
)

PREDICT = (
    Pair("embedded model, whole predict at its own size, f32 / D-FINE-N, ONNX Runtime", "f32", "d-fine onnxruntime", 0.6),
    Pair("embedded model, whole predict at its own size, f32 / D-FINE-N, OpenVINO, f32", "f32", "d-fine openvino f32", 0.9),
    Pair("embedded model, whole predict at its own size, bf16 / D-FINE-N, ONNX Runtime", "bf16", "d-fine onnxruntime", 0.46),
    Pair("embedded model, whole predict at its own size, bf16 / f32", "bf16", "f32"),
)
"""Ours with all that `predict` does, theirs the network alone."""
