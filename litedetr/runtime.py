"""Predicts with exported detectors, in ONNX Runtime or OpenVINO. Neither this module nor what it imports needs PyTorch.

    from litedetr.runtime import Exported

    result = Exported("detector.onnx").predict("photo.jpg")       # Detections, as `Detector.predict` gives them
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from litedetr import image
from litedetr.config import DetectorConfig
from litedetr.detections import Detections

SUFFIXES = {".onnx": "onnxruntime", ".xml": "openvino"}
"""Ending of a file -> the package that runs it."""
GROUP = "litedetr"
"""Under which OpenVINO keeps what a file says of itself."""

Prepared = tuple[np.ndarray, image.PhotoGeometry]
"""One photo as the network takes it: pixels (1, 3, h, w), and how it lies there."""


class Session(Protocol):
    """A runtime with a model."""

    about: dict[str, str]

    def run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """(B, 3, H, W) float32 -> every output by its name."""


class Exported:
    """A detector that `python -m litedetr export` wrote.

    Args:
        file: FILE.onnx for ONNX Runtime, FILE.xml for OpenVINO.
        threads: of the runtime; its own choice if None.
        precision: "f32"; or "bf16", which OpenVINO has on some processors, with other detections (docs/export.md).

    Attributes:
        file: as given; config: of the detector.
        verdict: what was measured when it was exported; points: steps whose points are outputs, too.

    Raises:
        ValueError: another file, or the runtime is not installed.
    """

    def __init__(self, file: str | Path, threads: int | None = None, precision: str = "f32"):
        self.file = file = Path(file)
        package = SUFFIXES.get(file.suffix)
        if package is None or not file.is_file():
            raise ValueError(f'expected a file that "python -m litedetr export" wrote (.onnx or .xml), got {str(file)!r}')
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"expected the package {package} for {file.name}, which is not installed: pip install {package}")
        if precision not in ("f32", "bf16") or (precision == "bf16" and package == "onnxruntime"):
            raise ValueError(f'expected the precision "f32", or "bf16" with OpenVINO, got {precision!r} for {file.name}')
        self._session: Session = _OnnxRuntime(file, threads) if package == "onnxruntime" else _OpenVino(file, threads, precision)
        about = self._session.about
        if "config" not in about:
            raise ValueError(f'expected a model that "python -m litedetr export" wrote, got another one in {file.name}')
        self.runtime = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[package]
        self.config = DetectorConfig.from_dict(json.loads(about["config"]))
        self.verdict: dict[str, Any] = json.loads(about.get("verdict", "{}"))
        self.points: list[str] = json.loads(about["points"])
        size = json.loads(about["preprocessing"])["size"]
        self._size: tuple[int, int] | None = tuple(size) if size else None

    def predict(self, photo: image.Photo, threshold: float | None = None) -> Detections:
        """Find objects in one photo. Arguments and errors are those of `Detector.predict`."""
        opened = image.open_small(photo)
        return replace(self.predict_prepared([self.prepare(opened)], threshold)[0], photo=opened.pixels)

    def predict_batch(self, photos: Iterable[image.Photo], threshold: float | None = None) -> list[Detections]:
        """`predict` for many photos."""
        return self.predict_prepared([self.prepare(image.open_small(photo)) for photo in photos], threshold)

    def prepare(self, photo: np.ndarray | image.Opened) -> Prepared:
        """(H, W, 3) uint8 RGB -> pixels (1, 3, h, w) float32, and how the photo lies there.

        Raises:
            litedetr.image.PhotoError: so narrow that it has fewer tokens than the model has queries.
        """
        c, photo = self.config, image.open_small(photo)
        if self._size:
            pixels = image.normalise(image.resize(photo.pixels, self._size), c.pixel_mean, c.pixel_std)
            return pixels, image.PhotoGeometry(photo.size, self._size, self._size)
        pixels, geometry = image.prepare(photo, c.short_side, c.long_side, c.size_divisor, c.pixel_mean, c.pixel_std)
        height, width = geometry.padded
        tokens = sum(-(-height // stride) * -(-width // stride) for stride in (8 << level for level in range(c.levels)))
        if c.two_stage and tokens < c.queries:
            raise image.PhotoError(
                f"This picture is too narrow for the exported model, which looks for {c.queries} objects: {photo.size[1]} × "
                f"{photo.size[0]} pixels become {width} × {height}. Cut it, or use the model in PyTorch."
            )
        return pixels, geometry

    def predict_prepared(self, prepared: Sequence[Prepared], threshold: float | None = None, batch: int = 8) -> list[Detections]:
        """`predict_batch` for what `prepare` gave; `batch` photos of one size at once."""
        by_size: dict[tuple[int, ...], list[int]] = {}
        for index, (pixels, _) in enumerate(prepared):
            by_size.setdefault(pixels.shape, []).append(index)
        found: dict[int, Detections] = {}
        for indices in by_size.values():
            for chosen in (indices[start : start + batch] for start in range(0, len(indices), batch)):
                outputs = self.outputs(np.concatenate([prepared[index][0] for index in chosen]))
                for index, logits, boxes in zip(chosen, outputs["logits"], outputs["boxes"], strict=True):
                    found[index] = Detections.from_outputs(logits, boxes, prepared[index][1].photo, self.config, threshold)
        return [found[index] for index in range(len(prepared))]

    def outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """(B, 3, H, W) float32, normalised -> all outputs: "logits" (B, Q, K), "boxes" (B, Q, 4) cxcywh in [0, 1], and of every
        step in `points` "<step>.locations" (B, Q, M, L, P, 2) and "<step>.weights" (B, Q, M, L, P)."""
        return self._session.run(np.ascontiguousarray(pixels))


class _OnnxRuntime:
    def __init__(self, file: Path, threads: int | None):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3  # warnings are about its own optimisations
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]
        self.about = self._session.get_modelmeta().custom_metadata_map

    def run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self._names, self._session.run(None, {"pixels": pixels}), strict=True))


class _OpenVino:
    def __init__(self, file: Path, threads: int | None, precision: str):
        import openvino

        core = openvino.Core()
        model = core.read_model(file)
        known = model.get_rt_info()
        self.about = {name: value.astype(str) for name, value in known[GROUP].items()} if GROUP in known else {}
        # Without the first it takes bfloat16 where the processor has it, and gives other detections.
        settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        self._model = core.compile_model(model, "CPU", settings | ({"INFERENCE_NUM_THREADS": threads} if threads else {}))
        self._request = self._model.create_infer_request()

    def run(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        found = self._request.infer({"pixels": pixels})
        return {output.any_name: np.array(found[output]) for output in self._model.outputs}
