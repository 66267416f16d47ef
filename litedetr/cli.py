"""python -m litedetr detect | export | convert | push | mirror | verify | train | study | eval | cost | models | bench"""

from __future__ import annotations

import argparse
import difflib
import io
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from litedetr.config import DetectorConfig, preset, presets
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
        status = options.command(options)
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
    detect.set_defaults(command=_detect)

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
    export.set_defaults(command=_export)

    convert = commands.add_parser("convert", help="a published checkpoint to this project's format")
    convert.add_argument("source", help="a .pth file, its address, a preset with published weights, a folder of transformers' "
                         "DeformableDetr, or a Hub id")  # fmt: skip
    convert.add_argument("folder", type=Path, help="where config.json, model.safetensors and README.md go")
    convert.add_argument("--schedule", help='the encoder\'s schedule where the checkpoint does not tell, e.g. "H3L1-(2+1)x3"')
    convert.add_argument("--heads", type=int, help="attention heads where the checkpoint does not tell")
    convert.set_defaults(command=_convert)

    push = commands.add_parser("push", help="upload a model with its card to the Hub")
    push.add_argument("folder", type=Path, help="config.json, model.safetensors and, if there is one, README.md")
    push.add_argument("name", help='"owner/name"; made if there is none')
    push.add_argument("--private", action="store_true", default=None, help="a new repository is for you alone")
    push.set_defaults(command=_push)

    verify = commands.add_parser("verify", help="compare a model on the Hub with its published numbers (needs the network)")
    verify.add_argument("model", nargs="?", help="e.g. SenseTime/deformable-detr")
    verify.add_argument("--published", action="store_true", help="everything in the catalogue of published weights instead: "
                        "download, convert, run on a photo, and write sizes and SHA-256 into the catalogue")  # fmt: skip
    verify.add_argument("--photo", type=Path, help="COCO val2017's 000000039769.jpg (default: download it)")
    verify.set_defaults(command=_verify)

    data = commands.add_parser("data", help="look at a set before training: pictures, boxes and classes, and what is odd")
    data.add_argument("data", type=Path, metavar="DIR", help=DATA)
    data.add_argument("--from", dest="start", default="embedded", help="whose classes to compare it with (default: embedded)")
    data.add_argument("--sheet", type=Path, default=Path("sheet.png"), help="PNG of 16 pictures as the training sees them")
    data.set_defaults(command=_data)
    mirror = commands.add_parser("mirror", help="convert all published weights and upload them to your account on the Hub")
    mirror.add_argument("owner", help="your name, or your organisation's, on the Hub")
    mirror.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these alone, by their names in the catalogue")
    mirror.add_argument("--private", action="store_true", default=None, help="new repositories are for you alone")
    mirror.set_defaults(command=_mirror)

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
    train.set_defaults(command=_train)

    study = commands.add_parser("study", help="train the embedded detector with several encoders on one budget, and compare")
    study.add_argument("--data", type=Path, required=True, help=DATA)
    study.add_argument("--out", type=Path, required=True, help="folder for the trainings and study.json; a killed study goes on")
    study.add_argument("--steps", type=int, default=800, help="batches of 8 photos that each one is trained for (default: 800)")
    study.add_argument("--size", type=int, default=256, help="longer side of the photos in pixels (default: 256)")
    study.add_argument("--threads", type=int, default=0, help="CPU threads")
    study.set_defaults(command=_study)

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
    evaluate.set_defaults(command=_evaluate)

    cost = commands.add_parser("cost", help="multiply-adds of a model, stage by stage")
    cost.add_argument("model", nargs="?", help=f'a preset ({", ".join(sorted(presets()))}), a weights folder or "embedded"')
    cost.add_argument("--paper", action="store_true", help="the paper's tables 3 and 4, its figures and what is counted here")
    cost.add_argument("--size", default="800x1066", help="height x width of the network's input (default: 800x1066)")
    cost.add_argument("--json", action="store_true")
    cost.set_defaults(command=_cost)

    models = commands.add_parser("models", help="the table of presets, in Markdown")
    models.set_defaults(command=_models)

    bench = commands.add_parser("bench", help="time attention, encoder and detectors side by side with what else there is")
    usual = "core,encoder,detector,embedded,predict,exported,threads,memory,visitor,start,bulk,cuda"
    bench.add_argument("--rows", help=f"only these, e.g. core,encoder (default: {usual}; guests: models of transformers)")
    bench.add_argument("--quick", action="store_true", help="640x640 only, and 2 rounds")
    bench.add_argument("--rounds", type=int, help="turns of each contestant (default: 5)")
    bench.add_argument("--threads", default="1", help="of each contestant, one number or several: 1,2 (default: 1)")
    bench.add_argument("--json", type=Path, help="write the figures to this file, too")
    bench.add_argument("--from", dest="report", type=Path, help="measure nothing: take the figures from such a file")
    bench.add_argument("--markdown", type=Path, nargs="+", default=[], help="put the table into these documents, at its marks")
    bench.set_defaults(command=_bench)
    for command in commands.choices.values():
        command.set_defaults(named=re.findall(r"--[a-z][\w-]*", command.format_help()))
    return parser


def _detect(options: argparse.Namespace) -> int:
    from litedetr.batch.detect import detect_many, photo_files
    from litedetr.batch.processes import choose_device, join, leave
    from litedetr.batch.resume import file_fingerprint, fingerprint
    from litedetr.detections import check_threshold
    from litedetr.detector import Detector
    from litedetr.runtime import Exported

    if options.batch < 1:
        raise ValueError(f"expected at least one photo at once, got --batch {options.batch}")
    if options.threshold is not None:
        check_threshold(options.threshold)
    if options.out is None:
        return _detect_to_screen(options)
    if options.draw is not None:
        raise ValueError("expected --draw or --out, got both: detect once for each")
    processes = join(options.device)
    try:
        if options.runtime:
            detector, model = Exported(options.runtime), file_fingerprint(options.runtime)
        else:
            plain = Detector.from_pretrained(options.model).to(choose_device(options.device))
            detector, model = plain.optimize("float32"), fingerprint(plain)
        report = detect_many(
            detector, processes.from_first(lambda: photo_files(options.photos)), options.out,
            about={"model": model, "threshold": options.threshold},
            threshold=options.threshold, batch=options.batch, restart=options.restart, processes=processes,
        )  # fmt: skip
    finally:
        leave()
    if processes.first:
        print(report.summary())
    return 1 if report.refused else 0


def _detect_to_screen(options: argparse.Namespace) -> int:
    from litedetr.batch.detect import line_of, photo_files, to_json
    from litedetr.batch.processes import choose_device
    from litedetr.detector import Detector
    from litedetr.image import open_photo
    from litedetr.runtime import Exported

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("expected --out where torchrun starts several processes, got none: name the file for the lines")
    detector: Detector | Exported
    if options.runtime:
        detector = Exported(options.runtime)
    else:
        detector = Detector.from_pretrained(options.model).to(choose_device(options.device))
    refused, names = False, []
    for file in photo_files(options.photos):
        try:
            found = detector.predict(file, options.threshold)
            if options.draw is not None:
                options.draw.mkdir(parents=True, exist_ok=True)
                names.append(file.name)  # photos of one name in several folders are numbered
                number = f"-{names.count(file.name)}" if names.count(file.name) > 1 else ""
                found.drawn_on(open_photo(file)).save(options.draw / f"{file.name}{number}.jpg", quality=92)
        except PhotoError as error:
            refused, found = True, error
        sys.stdout.write(to_json(line_of(file, found), sys.stdout.encoding or "utf-8"))
        sys.stdout.flush()
    return 1 if refused else 0


def _export(options: argparse.Namespace) -> int:
    from litedetr.detector import Detector
    from litedetr.export import export
    from litedetr.runtime import SUFFIXES

    runtime = SUFFIXES.get(options.out.suffix, "")
    if options.to and not runtime.startswith(options.to):
        ending = next(suffix for suffix, package in SUFFIXES.items() if package.startswith(options.to))
        raise ValueError(f"expected --out with the ending {ending} for {options.to}, got {options.out.name}")
    detector = Detector.from_preset(options.model) if options.random else Detector.from_pretrained(options.model)
    points = options.points
    if points == []:
        points = [detector.encoder.steps[-1].name, f"decoder {detector.config.decoder_layers}"]
    size = None if options.size is None else _size(options.size if "x" in options.size else f"{options.size}x{options.size}")
    verdict = export(detector, options.out, sampling=options.sampling, size=size, points=points or (), half=options.half)
    print(verdict)
    megabytes = sum(file.stat().st_size for file in (options.out, options.out.with_suffix(".bin")) if file.is_file()) / 1e6
    print(f"{options.out}: {megabytes:.1f} MB")
    return 1 if verdict.ok is False else 0


def _convert(options: argparse.Namespace) -> int:
    from litedetr.weights import convert

    config = convert(options.source, options.folder, options.schedule, options.heads)
    print(f"{options.folder}: {config.family}, {config.backbone}, encoder {config.schedule}, {config.num_classes} classes")
    return 0


def _push(options: argparse.Namespace) -> int:
    from litedetr.weights.hub import push

    print(push(options.folder, options.name, options.private))
    return 0


def _verify(options: argparse.Namespace) -> int:
    from litedetr.weights.verify import EXAMPLE, verify, verify_published

    if options.published:
        lines = list(map(_say, verify_published(options.photo or EXAMPLE)))
        return 1 if any("FAILED" in line for line in lines) else 0
    if options.model is None:
        raise ValueError("expected a model on the Hub or --published, got nothing: name what to verify")
    result = verify(options.model, options.photo)
    print(result)
    return 0 if result.ok else 1


def _data(options: argparse.Namespace) -> int:
    from litedetr.training import recipes
    from litedetr.training.data import PhotoSet
    from litedetr.training.layouts import find
    from litedetr.training.survey import sheet, survey
    from litedetr.weights import read_config

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = find(options.data)
    splits = {name: PhotoSet.open(options.data, name, cache_bytes=0) for name in found}
    print(survey(splits, {name: split.layout for name, split in found.items()}, read_config(options.start).names))
    sheet(next(iter(splits.values())), options.sheet, recipes.finetune().augmentation)
    print(f"{options.sheet}: 16 pictures as the training sees them, with their boxes")
    return 0


def _mirror(options: argparse.Namespace) -> int:
    from litedetr.weights.mirror import mirror

    for address in mirror(options.owner, options.only, options.private):
        _say(address)
    return 0


def _say(line: str) -> str:
    print(line, flush=True)
    return line


def _train(options: argparse.Namespace) -> int:
    from litedetr.batch.processes import join, leave
    from litedetr.training.arguments import recipe_of
    from litedetr.training.loop import train

    names = (
        "recipe", "start", "preset", "backbone", "seconds", "steps", "epochs", "batch", "size", "rate", "evaluate_every",
        "patience", "bf16", "threads", "workers", "teacher",
    )  # fmt: skip
    first = int(os.environ.get("RANK", "0")) == 0
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s")
    recipe = recipe_of(options.data, **{name: vars(options)[name] for name in names})
    processes = join(recipe.device)
    try:
        result = train(recipe, options.data, options.out, resume=not options.restart, processes=processes)
    finally:
        leave()
    if not processes.first:
        return 0
    print(f"{result.steps} steps in {result.seconds:.0f} s; weights in {result.weights}")
    if result.evaluation is not None:
        print(result.evaluation.summary())
    if result.at_start is not None:
        print(f"AP at the start {100 * result.at_start:.1f}")
    if result.best is not None:
        print(f"best: AP {100 * result.best[1]:.1f}; weights in {result.best[0]}")
    return 0


def _study(options: argparse.Namespace) -> int:
    from litedetr.training.study import clock, markdown, spread, study

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = study(options.data, options.out, steps=options.steps, size=options.size, threads=options.threads)
    spread(found, options.data, options.out)
    clock(found, options.out)
    (options.out / "study.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(markdown(found), end="")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from litedetr.batch.processes import choose_device, join, leave
    from litedetr.detector import Detector
    from litedetr.training.calibration import write_calibration
    from litedetr.training.classes import category_ids
    from litedetr.training.data import PhotoSet
    from litedetr.training.evaluation import coco_paths, evaluate, write_charts

    if options.coco is not None:
        photos = PhotoSet(*coco_paths(options.coco, options.split), cache_bytes=0)
    else:
        photos = PhotoSet.open(options.data, options.split, cache_bytes=0)
    if options.calibrate and not (Path(options.model) / "config.json").is_file():
        raise ValueError(f"expected a weights folder to write the threshold to, got {options.model}; leave --calibrate out")
    processes = join(options.device)
    try:
        detector = Detector.from_pretrained(options.model).to(choose_device(options.device))
        for note in category_ids(detector.config, photos)[1] if processes.first else ():
            print(note, file=sys.stderr)
        result = evaluate(
            detector, photos.annotations, photos.folder, photos=photos, size=options.size, limit=options.limit,
            batch_size=options.batch, precision=options.precision, results=options.out, processes=processes,
        )  # fmt: skip
    finally:
        leave()
    if processes.first:
        print(json.dumps(result.to_dict(), indent=2) if options.json else result.table())
        if options.charts is not None:
            write_charts(result, options.charts)
        if options.calibrate:
            write_calibration(Path(options.model), result.calibration)
    return 0


def _cost(options: argparse.Namespace) -> int:
    from litedetr.cost import full_encoder, gmacs, paper, parameters
    from litedetr.weights import read_config

    if options.paper:
        print(json.dumps(paper.table(), indent=2) if options.json else paper.text())
        return 0
    if options.model is None:
        raise ValueError("expected a preset, a weights folder or --paper, got nothing: name what to count")
    config: DetectorConfig = preset(options.model) if options.model in presets() else read_config(options.model)
    size = _size(options.size)
    cost = gmacs(config, size)
    full = gmacs(full_encoder(config), size).encoder
    stages = {name: getattr(cost, name) for name in ("backbone", "neck", "encoder", "selection", "decoder", "heads", "total")}
    steps = {step.name: macs for step, macs in zip(config.encoder_schedule.steps(), cost.steps, strict=True)}
    if options.json:
        data = {"size": list(size), "gmacs": stages, "encoder_steps": steps, "full_encoder": full}
        print(json.dumps(data | {"parameters": parameters(config)}, indent=2))
        return 0
    for name, value in stages.items():
        print(f"{'  heads' if name == 'heads' else name:10} {value:8.2f} {'  (in the decoder)' if name == 'heads' else 'GMACs'}")
        if name == "encoder":
            for step, macs in steps.items():
                print(f"  {step:8} {macs:8.2f}")
            print(f"  {'(full)':8} {full:8.2f}   with every scale updated in every layer")
    print(f"{'parameters':10} {parameters(config) / 1e6:8.2f} million")
    return 0


def _models(options: argparse.Namespace) -> int:
    from litedetr.cost import catalogue

    print(catalogue.markdown())
    return 0


def _bench(options: argparse.Namespace) -> int:
    from litedetr.bench import table
    from litedetr.bench.report import Report
    from litedetr.bench.rows import Plan, measure

    if options.report:
        report = Report.load(options.report)
    else:
        chosen = {"groups": tuple(options.rows.split(","))} if options.rows else {}
        rounds = options.rounds or (2 if options.quick else Plan.rounds)
        sizes = {"sizes": ((640, 640),)} if options.quick else {}
        threads = tuple(map(int, options.threads.split(",")))
        plan = Plan(rounds=rounds, threads=threads, **chosen, **sizes)
        for report in measure(plan, lambda group: print(f"{group} …", file=sys.stderr)):
            if options.json:
                report.save(options.json)
    print(table.markdown(report), end="")
    for document in options.markdown:
        table.write_into(document, report)
    return 0


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in text.lower().replace("×", "x").split("x"))
    except ValueError:
        height = width = 0
    if min(height, width) < 1:
        raise ValueError(f"expected a size like 800x1066 (height x width), got {text!r}")
    return height, width
