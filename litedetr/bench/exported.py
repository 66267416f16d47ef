"""A detector's exports in the runtimes that they are for, beside this project's own fast path: does an export pay?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from litedetr import image
from litedetr.bench.peers import need
from litedetr.detector import Detector
from litedetr.export.files import about, write
from litedetr.export.graph import to_onnx
from litedetr.export.verdict import Outputs, agreement
from litedetr.output import DetectorOutput
from litedetr.runtime import SUFFIXES, Exported
from litedetr.shipped import shipped
from litedetr.timing import Contestant

PHOTO = "astronaut.jpg"


def example(detector: Detector) -> Tensor:
    """An example photo as the detector takes it, (1, 3, H, W): noise has nothing to agree about."""
    return detector.prepare(image.open_photo(shipped("assets/examples") / PHOTO))[0]


def in_runtime(
    detector: Detector, pixels: Tensor, folder: Path, sampling: str, suffix: str, threads: int, precision: str = "f32"
) -> Contestant:
    """An export of the detector (files go into `folder`, each once) in ONNX Runtime (".onnx") or OpenVINO (".xml"); a run gives
    (logits, boxes) as arrays."""
    for package in ("onnx", SUFFIXES[suffix]):
        need(package)
    graph, file = folder / f"{sampling}.graph.onnx", folder / f"{sampling}{suffix}"
    if not graph.is_file():
        to_onnx(detector, graph, sampling, None, ())
    if not file.is_file():
        write(graph, file, about(detector.config, sampling, None, (), False), False)
    exported, array = Exported(file, threads, precision), pixels.numpy()

    def run() -> Outputs:
        found = exported.outputs(array)
        return found["logits"], found["boxes"]

    return run


def agree(one: object, other: object, size: tuple[int, int]) -> tuple[float, float]:
    """Mean matched IoU and share of the same classes of the 100 best detections, see `litedetr.export.verdict.Agreement`.

    one, other: what two detectors' runs gave for the same picture of `size` (height, width).
    """
    found = agreement([(_outputs(one), _outputs(other), size)])
    return found.iou, found.same_classes


def _outputs(result: object) -> Outputs:
    """The first picture's logits and boxes, out of what a run gave."""
    both = (result.logits, result.boxes) if isinstance(result, DetectorOutput) else tuple(result)[:2]
    logits, boxes = (part.float().numpy() if isinstance(part, Tensor) else np.asarray(part, np.float32) for part in both)
    return logits[0], boxes[0]
