"""What people wait for: the page, its answers, a folder of photos. Each is measured in processes of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from litedetr.batch.detect import detect_many
from litedetr.bench import ours, stages
from litedetr.bench.report import Row
from litedetr.config import DetectorConfig
from litedetr.timing import Ratio, take_turns

ROOT = Path(__file__).parents[2]
LARGE = (3000, 4000)
"""A photo of 12 megapixels."""
PATIENCE = 120.0
NO_PAGE = "not measured: needs the page, which is in this project's repository"
BULK_PHOTO, BULK_PHOTOS = (480, 640), 32
PORT = 7893


def visitor(rounds: int) -> Iterator[Row]:
    """A JPEG of 12 megapixels on the page's server, piece by piece, in milliseconds by the clock."""
    size = "{}x{}".format(*LARGE)
    without = Row("visitor", "the page's server, from the photo's bytes to the answer, without the model", size, "ms", 40)
    traced = Row("visitor", "predict with trace / without", size, "ratio", 1.15)
    if not (ROOT / "app" / "timing.py").is_file():
        yield from (row.missing(NO_PAGE) for row in (without, traced))
        return
    command = [sys.executable, "-m", "app.timing", *map(str, LARGE), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        yield from (row.missing(f"not measured: {done.stderr.strip().splitlines()[-1:]}") for row in (without, traced))
        return
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    for name in ("decode", "resize", "predict", "predict with trace", "picture (beside the model)", "answer"):
        yield _of_rounds(Row("visitor", f"of it: {name}", size, "ms"), found[name])
    rounds_of = zip(*(found[name] for name in ("run", "answer", "resize", "predict with trace")), strict=True)
    yield _of_rounds(without, [run + answer + resize - predict for run, answer, resize, predict in rounds_of])
    pairs = zip(found["predict with trace"], found["predict"], strict=True)
    yield _of_rounds(traced, [with_trace / alone for with_trace, alone in pairs])


def start() -> Iterator[Row]:
    """From `python app.py` to the page, and to its first answer to a program, in seconds by the clock; the kernel is built."""
    page = Row("start", "process to page", "", "s", 6)
    answer = Row("start", "process to first answer", "", "s", 8)
    if not (ROOT / "app.py").is_file():
        yield from (row.missing(NO_PAGE) for row in (page, answer))
        return
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "app.py", "--port", str(PORT)], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            _read(f"http://127.0.0.1:{PORT}/", begun)
            yield replace(page, value=time.perf_counter() - begun)
            _first_answer(f"http://127.0.0.1:{PORT}/gradio_api", begun)
            yield replace(answer, value=time.perf_counter() - begun)
        except TimeoutError as error:
            yield answer.missing(f"not measured: {error}")
        finally:
            process.terminate()
            process.wait()


def bulk(config: DetectorConfig, rounds: int) -> Iterator[Row]:
    """`detect FOLDER` on all processors against `predict` in a loop with one thread, photo for photo."""
    row = Row(
        "bulk", "detect FOLDER / predict in a loop with one thread", "{}x{}".format(*BULK_PHOTO), "ratio", round(1 / 1.8, 3)
    )
    detector = ours.optimised(config, torch.float32)[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [folder / f"{number}.jpg" for number in range(BULK_PHOTOS)]
        for file in files:
            file.write_bytes(stages.noise(BULK_PHOTO))

        def many() -> object:
            return detect_many(detector, files, folder / "found.jsonl", about={}, restart=True)

        def loop() -> object:
            return [detector.predict(file) for file in files]

        threads = torch.get_num_threads()
        times = take_turns({"many": stages.with_threads(threads, many), "loop": stages.with_threads(1, loop)}, rounds)
    ratio = Ratio.of(times["many"], times["loop"], threads=2)  # by the clock
    yield replace(
        row, value=ratio.value, lowest=ratio.lowest, highest=ratio.highest, ours_wall=_middle(times["many"].wall),
        theirs_wall=_middle(times["loop"].wall),
    )  # fmt: skip


def _of_rounds(row: Row, values: list[float]) -> Row:
    return replace(row, value=_middle(values), lowest=min(values), highest=max(values))


def _middle(values: list[float] | tuple[float, ...]) -> float:
    return sorted(values)[len(values) // 2]


def _read(url: str, begun: float, data: bytes | None = None, kind: str = "application/json") -> bytes:
    """What comes from an address, asked again until it is there."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.perf_counter() - begun < PATIENCE:
        try:
            return direct.open(urllib.request.Request(url, data, {"Content-Type": kind}), timeout=PATIENCE).read()
        except (ConnectionError, urllib.error.URLError):
            time.sleep(0.02)
    raise TimeoutError(f"{url} did not answer in {PATIENCE:.0f} s")


def _first_answer(api: str, begun: float) -> None:
    """Detections of a photo by the page's endpoint for programs."""
    body = b'--part\r\nContent-Disposition: form-data; name="files"; filename="noise.jpg"\r\n\r\n'
    upload = _read(
        f"{api}/upload", begun, body + stages.noise(BULK_PHOTO) + b"\r\n--part--\r\n", "multipart/form-data; boundary=part"
    )
    photo = {"path": json.loads(upload)[0], "meta": {"_type": "gradio.FileData"}}
    event = json.loads(_read(f"{api}/call/detect", begun, json.dumps({"data": [photo, 0.3]}).encode()))["event_id"]
    said = _read(f"{api}/call/detect/{event}", begun).decode()
    if not re.search("^event: complete", said, re.MULTILINE):
        raise TimeoutError(f"the page answered {said[:100]!r}")
