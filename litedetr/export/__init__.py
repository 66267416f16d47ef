"""Detectors as files for other runtimes: ONNX and OpenVINO, in standard operators, checked against PyTorch before they are given.

    python -m litedetr export embedded --out detector.onnx

`litedetr.runtime.Exported` predicts with such a file, without PyTorch. What is in it: docs/export.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from litedetr.detector import Detector
from litedetr.export import files
from litedetr.export.graph import SAMPLING, Size, to_onnx
from litedetr.export.verdict import Verdict, judge
from litedetr.runtime import SUFFIXES

__all__ = ["SAMPLING", "Verdict", "export"]


def export(
    detector: Detector,
    out: str | Path,
    *,
    sampling: str = "grid_sample",
    size: Size | None = None,
    points: Sequence[str] = (),
    half: bool = False,
) -> Verdict:
    """Write the detector to a file and compare what the file gives for three photos with what PyTorch gives.

    The file stays whatever the verdict is, and holds it.

    Args:
        out: FILE.onnx for ONNX, FILE.xml (and FILE.bin beside it) for OpenVINO.
        sampling: "grid_sample", one operator for each level; or "gather", which compilers get right that do not know the former.
        size: (height, width) of the network's input, to which photos are stretched; None lets the photo decide.
        points: names of attention steps, e.g. "B3 all" or "decoder 6", whose locations and weights become outputs, too.
        half: OpenVINO: weights in float16, half the size.

    Raises:
        ValueError: an argument that fits nothing, or a package that is missing; the message says what to do.
    """
    out = Path(out)
    if out.suffix not in SUFFIXES:
        raise ValueError(f"expected a file ending in {' or '.join(SUFFIXES)}, got {out.name!r}: the ending names the runtime")
    if half and out.suffix != ".xml":
        raise ValueError(f"expected half with OpenVINO (.xml), got {out.name!r}: leave it out, or name a .xml file")
    about = files.about(detector.config, sampling, size, points, half)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        graph = Path(folder) / "graph.onnx"
        to_onnx(detector, graph, sampling, size, points)
        files.write(graph, out, about, half)
        verdict = judge(detector, out, exact=not half)
        files.write(graph, out, about | {"verdict": verdict.to_json()}, half)
    return verdict
