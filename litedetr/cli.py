"""python -m litedetr detect | export | convert | push | mirror | verify | train | study | eval | cost | models | bench"""

from __future__ import annotations

import argparse
import difflib
import io
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from litedetr.config import presets
from litedetr.image import PhotoError
from litedetr.weights import WeightsError

DATA = "folder with photographs and boxes, in any of the README's layouts"
MODEL = '"embedded", a weights folder, a Hub id, a preset with published weights, or the address of a .pth file'


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status is 0 where all went well."""
    parser = _parser()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no name of a file or class ends a run
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.print_help()
        return 0
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(_unknown(unknown[0], options.named))
    try:
        module, _, name = options.command.partition(".")
        status = vars(import_module(f"litedetr.commands.{module}"))[name](options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (PhotoError, WeightsError, ValueError, FileNotFoundError) as error:
        print(f"litedetr: {error}", file=sys.stderr)
        return 2


def _unknown(given: str, named: Sequence[str]) -> str:
    """What is said of an argument that a command does not know."""
    near = difflib.get_close_matches(given.split("=")[0], named, 1, 0.5)
    return f"unknown argument {given}" + (f": did you mean {near[0]}?" if near else "; --help lists them")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m litedetr", description="Lite DETR: detect, train, evaluate, count.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    detect = commands.add_parser("detect", help="find objects in photos; one JSON line per photo")
    detect.add_argument("photos", nargs="+", type=Path, help="files or folders")
    detect.add_argument("--model", default="embedded", help=MODEL)
    detect.add_argument("--runtime", type=Path, metavar="FILE", help="an exported model (.onnx, .xml) to run instead of --model")
    detect.add_argument("--threshold", type=float, help="lowest score to keep (default: the model's own)")
    detect.add_argument("--out", type=Path, help="write the lines to this file, in no order; a killed run given the same one "
                        "goes on, and torchrun may share the photos among processes")  # fmt: skip
    detect.add_argument("--draw", type=Path, metavar="DIR", help="put the photos with their boxes there, as JPEG")
    detect.add_argument("--batch", type=int, default=8, help="photos of one size at once, with --out (default: 8)")
    detect.add_argument("--device", default="auto", help='"cpu", "cuda" or "auto"')
    detect.add_argument("--restart", action="store_true", help="drop what --out holds")
    detect.set_defaults(command="detect.run_detect")

    export = commands.add_parser("export", help="a model as a file for ONNX Runtime or OpenVINO, compared with PyTorch")
    export.add_argument("model", help=MODEL)
    export.add_argument("--random", action="store_true", help="a preset with random weights, whether or not some are published")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="FILE.onnx, or FILE.xml for OpenVINO")
    export.add_argument("--to", choices=("onnx", "openvino"), help="default: what the ending of FILE says")
    export.add_argument("--sampling", choices=("grid_sample", "gather"), default="grid_sample", help="how attention samples; "
                        "gather is for compilers that get grid_sample wrong, as TensorRT, or lack it")  # fmt: skip
    export.add_argument("--size", help="fixed height x width of the input, or one number for a square, to which photos are "
                        "stretched (default: any size, the photo decides)")  # fmt: skip
    export.add_argument("--points", nargs="*", metavar="STEP", help="also give locations and weights of these attention steps "
                        '(default: the last of the encoder and of the decoder), e.g. "B3 all" "decoder 3"')  # fmt: skip
    export.add_argument("--half", action="store_true", help="OpenVINO: weights in float16; says what that costs")
    export.set_defaults(command="formats.run_export")

    convert = commands.add_parser("convert", help="a published checkpoint to this project's format")
    convert.add_argument("source", help="a .pth file, its address, a preset with published weights, a folder of transformers' "
                         "DeformableDetr, or a Hub id")  # fmt: skip
    convert.add_argument("folder", type=Path, help="where config.json, model.safetensors and README.md go")
    convert.add_argument("--schedule", help='the encoder\'s schedule where the checkpoint does not tell, e.g. "H3L1-(2+1)x3"')
    convert.add_argument("--heads", type=int, help="attention heads where the checkpoint does not tell")
    convert.set_defaults(command="formats.run_convert")

    push = commands.add_parser("push", help="upload a model with its card to the Hub")
    push.add_argument("folder", type=Path, help="config.json, model.safetensors and, if there is one, README.md")
    push.add_argument("name", help='"owner/name"; made if there is none')
    push.add_argument("--private", action="store_true", default=None, help="a new repository is for you alone")
    push.set_defaults(command="hub.run_push")

    verify = commands.add_parser("verify", help="compare a model on the Hub with its published numbers (needs the network)")
    verify.add_argument("model", nargs="?", help="e.g. SenseTime/deformable-detr")
    verify.add_argument("--published", action="store_true", help="everything in the catalogue of published weights instead: "
                        "download, convert, run on a photo, and write sizes and SHA-256 into the catalogue")  # fmt: skip
    verify.add_argument("--photo", type=Path, help="COCO val2017's 000000039769.jpg (default: download it)")
    verify.set_defaults(command="hub.run_verify")

    data = commands.add_parser("data", help="look at a set before training: pictures, boxes and classes, and what is odd")
    data.add_argument("data", type=Path, metavar="DIR", help=DATA)
    data.add_argument("--from", dest="start", default="embedded", help="whose classes to compare it with (default: embedded)")
    data.add_argument("--sheet", type=Path, default=Path("sheet.png"), help="PNG of 16 pictures as the training sees them")
    data.set_defaults(command="training.run_data")
    mirror = commands.add_parser("mirror", help="convert all published weights and upload them to your account on the Hub")
    mirror.add_argument("owner", help="your name, or your organisation's, on the Hub")
    mirror.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these alone, by their names in the catalogue")
    mirror.add_argument("--private", action="store_true", default=None, help="new repositories are for you alone")
    mirror.set_defaults(command="hub.run_mirror")

    train = commands.add_parser("train", help="train a detector on a COCO-format folder; goes on where it was stopped")
    train.add_argument("--data", type=Path, required=True, help=DATA)
    train.add_argument("--out", type=Path, required=True, help="folder for checkpoints, the log and the weights")
    train.add_argument("--from", dest="start", help='"embedded" (the default), "scratch", a weights folder or a Hub id')
    train.add_argument("--recipe", default="", help='"finetune" (the default), "mobilenet" (from scratch), … or a file')
    train.add_argument("--preset", help="from scratch: the architecture; `python -m litedetr models` lists them")
    train.add_argument("--backbone", help="from scratch: file with backbone weights to start from")
    train.add_argument("--teacher", help="file with NanoDet-g's weights, whose answers are taught, too")
    train.add_argument("--epochs", type=float, help="length of the training in passes over the pictures")
    train.add_argument("--steps", type=int, help="length of the training in steps")
    train.add_argument("--seconds", type=float, help="length of the training in seconds (default: 1800)")
    train.add_argument("--batch", type=int, help="pictures at once (default: 8)")
    train.add_argument("--size", type=int, help="longer side of the pictures in pixels (default: 448)")
    train.add_argument("--rate", type=float, help="learning rate (default: 5e-5 with a start, 4e-4 from scratch)")
    train.add_argument("--evaluate-every", type=float, metavar="SECONDS", help="between two measurements on val")
    train.add_argument("--patience", type=int, help="end after so many measurements without a better one")
    train.add_argument("--bf16", action="store_true", help="compute in bfloat16 (default: where it is faster)")
    train.add_argument("--threads", type=int, help="CPU threads")
    train.add_argument("--workers", type=int, help="threads that prepare pictures ahead of time (default: 1; more for a GPU)")
    train.add_argument("--restart", action="store_true", help="do not go on from a checkpoint in --out")
    train.set_defaults(command="training.run_train")

    study = commands.add_parser("study", help="train the embedded detector with several encoders on one budget, and compare")
    study.add_argument("--data", type=Path, required=True, help=DATA)
    study.add_argument("--out", type=Path, required=True, help="folder for the trainings and study.json; a killed study goes on")
    study.add_argument("--steps", type=int, default=800, help="batches of 8 photos that each one is trained for (default: 800)")
    study.add_argument("--size", type=int, default=256, help="longer side of the photos in pixels (default: 256)")
    study.add_argument("--from", dest="start", default="embedded", help="which detector gets other encoders (default: embedded)")
    study.add_argument("--teacher", type=Path, metavar="FILE", help="NanoDet-g's weights, which the embedded model learned from "
                       "(default: what the start itself says)")  # fmt: skip
    study.add_argument("--threads", type=int, default=0, help="CPU threads")
    study.set_defaults(command="training.run_study")

    evaluate = commands.add_parser("eval", help="COCO AP of a model on a COCO-format split")
    evaluate.add_argument("model", nargs="?", default="embedded", help=MODEL)
    where = evaluate.add_mutually_exclusive_group(required=True)
    where.add_argument("--data", type=Path, help=DATA)
    where.add_argument("--coco", type=Path, help="folder as COCO has it: annotations/instances_<split>2017.json and <split>2017/")
    evaluate.add_argument("--split", default="val")
    evaluate.add_argument("--out", type=Path, help="folder for the detections; a killed run given the same one goes on")
    evaluate.add_argument("--batch", type=int, default=8, help="photos at once (default: 8)")
    evaluate.add_argument("--precision", choices=("f32", "bf16", "auto"), default="f32")
    evaluate.add_argument("--device", default="auto", help='"cpu", "cuda" or "auto"')
    evaluate.add_argument("--size", type=int, help="longer side in pixels (default: the model's own)")
    evaluate.add_argument("--limit", type=int, help="measure on the first N photos only")
    evaluate.add_argument("--json", action="store_true", help="print JSON, per-class AP included")
    evaluate.add_argument("--charts", type=Path, metavar="DIR", help="put precision-recall.svg and confusion.svg there")
    evaluate.add_argument("--calibrate", action="store_true", help="rescale the model's class heads so that a score is the "
                          "share of detections that are right, write the threshold of best F1 into its config.json, and "
                          "reliability.svg beside it (the model must be a folder)")  # fmt: skip
    evaluate.set_defaults(command="training.run_evaluate")

    cost = commands.add_parser("cost", help="multiply-adds of a model, stage by stage")
    cost.add_argument("model", nargs="?", help=f'a preset ({", ".join(sorted(presets()))}), a weights folder or "embedded"')
    cost.add_argument("--paper", action="store_true", help="the paper's tables 3 and 4, its figures and what is counted here")
    cost.add_argument("--size", default="800x1066", help="height x width of the network's input (default: 800x1066)")
    cost.add_argument("--json", action="store_true")
    cost.set_defaults(command="cost.run_cost")

    models = commands.add_parser("models", help="the table of presets, in Markdown")
    models.set_defaults(command="cost.run_models")

    bench = commands.add_parser("bench", help="time attention, encoder and detectors side by side with what else there is")
    usual = "core,encoder,detector,embedded,predict,exported,threads,memory,visitor,start,bulk,cuda"
    bench.add_argument("--rows", help=f"only these, e.g. core,encoder (default: {usual}; guests: models of transformers)")
    bench.add_argument("--quick", action="store_true", help="640x640 only, and 2 rounds")
    bench.add_argument("--rounds", type=int, help="turns of each contestant (default: 5)")
    bench.add_argument("--threads", default="1", help="of each contestant, one number or several: 1,2 (default: 1)")
    bench.add_argument("--json", type=Path, help="write the figures to this file, too")
    bench.add_argument("--from", dest="report", type=Path, help="measure nothing: take the figures from such a file")
    bench.add_argument("--markdown", type=Path, nargs="+", default=[], help="put the table into these documents, at its marks")
    bench.set_defaults(command="bench.run_bench")
    for command in commands.choices.values():
        command.set_defaults(named=re.findall(r"--[a-z][\w-]*", command.format_help()))
    return parser
