"""Does an exported model pay? The embedded model, or another, in every runtime, beside this project's own fast path:

    python -m litedetr.bench.exported [MODEL] [--threads N] [--rounds N]

One example photo, batch 1, the network alone; all take turns. Beside each time stands how far its detections agree with plain
PyTorch's in float32: a form that no longer detects is no faster.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from litedetr import image, ops
from litedetr.bench.machine import machine
from litedetr.detector import Detector
from litedetr.export.files import about, write
from litedetr.export.graph import SAMPLING, to_onnx
from litedetr.export.verdict import Outputs, agreement
from litedetr.runtime import Exported
from litedetr.shipped import shipped
from litedetr.timing import take_turns

Answer = Callable[[], Outputs]


def contestants(detector: Detector, pixels: np.ndarray, threads: int, folder: Path) -> dict[str, Answer]:
    """Every form of the detector as a function that gives the photo's logits and boxes; the first one is the oracle."""
    tensor = torch.from_numpy(pixels)
    forms: dict[str, Answer] = {"PyTorch, plain, f32": _in_pytorch(detector, tensor)}
    for dtype in ("float32", "bfloat16"):
        forms[f'`optimize("{dtype}")`'] = _in_pytorch(detector.optimize(dtype), tensor)
    for sampling in SAMPLING:
        graph = folder / f"{sampling}-graph.onnx"
        to_onnx(detector, graph, sampling, None, ())
        for suffix, half in ((".onnx", False), (".xml", False)):
            file = folder / f"{sampling}{suffix}"
            write(graph, file, about(detector.config, sampling, None, (), half), half)
            exported = Exported(file, threads)
            forms[f"{exported.runtime}, f32, {sampling}"] = _exported(exported, pixels)
        brain = Exported(folder / f"{sampling}.xml", threads, precision="bf16")
        forms[f"OpenVINO, bf16, {sampling}"] = _exported(brain, pixels)
    return forms


def _in_pytorch(detector: Detector, pixels: torch.Tensor) -> Answer:
    def answer() -> Outputs:
        with torch.inference_mode(), ops.use("auto"):
            output = detector(pixels)
        return output.logits[0].float().numpy(), output.boxes[0].float().numpy()

    return answer


def _exported(model: Exported, pixels: np.ndarray) -> Answer:
    def answer() -> Outputs:
        outputs = model.outputs(pixels)
        return outputs["logits"][0], outputs["boxes"][0]

    return answer


def table(detector: Detector, threads: int, rounds: int) -> str:
    """The rows, in Markdown."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    photo = image.open_photo(shipped("assets/examples") / "astronaut.jpg")
    pixels, _, _ = detector.prepare(photo)
    try:
        with tempfile.TemporaryDirectory() as folder:
            forms = contestants(detector, pixels.numpy(), threads, Path(folder))
            answers = {name: answer() for name, answer in forms.items()}
            times = take_turns(forms, rounds)
    finally:
        torch.set_num_threads(before)
    oracle = next(iter(answers.values()))
    lines = ["| form | ms | mean matched IoU | same classes | boxes, px | scores |", "| --- | --- | --- | --- | --- | --- |"]
    for name, timing in times.items():
        found = agreement([(oracle, answers[name], photo.shape[:2])])
        lines.append(
            f"| {name} | {statistics.median(timing.by(threads)):.0f} | {found.iou:.4f} | {found.same_classes:.0%} | "
            f"{found.box_pixels:.2g} | {found.score:.1g} |"
        )
    height, width = pixels.shape[2:]
    return "\n".join([*lines, "", f"{height} × {width}, {threads} thread(s), {rounds} rounds, load {machine()['load']}"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m litedetr.bench.exported")
    parser.add_argument("model", nargs="?", default="embedded")
    parser.add_argument("--random", action="store_true", help="MODEL is a preset, with random weights")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    detector = Detector.from_preset(options.model) if options.random else Detector.from_pretrained(options.model)
    sys.stdout.write(table(detector, options.threads, options.rounds))


if __name__ == "__main__":
    main()
