"""Photos in, what is in them out."""

from __future__ import annotations

import argparse
import os
import sys

from litedetr.batch.detect import detect_many, line_of, photo_files, to_json
from litedetr.batch.processes import choose_device, join, leave
from litedetr.batch.resume import file_fingerprint, fingerprint
from litedetr.detections import check_threshold
from litedetr.detector import Detector
from litedetr.image import PhotoError, open_photo
from litedetr.runtime import Exported


def run_detect(options: argparse.Namespace) -> int:
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
