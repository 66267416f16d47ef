"""Thousands of photos: detections as JSON lines, batched by size, by several processes, going on where a kill ended it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from tqdm import tqdm

from litedetr.batch.processes import ALONE, Processes
from litedetr.batch.resume import alone, begin, whole_lines
from litedetr.image import PhotoError, photo_size, resized_size
from litedetr.network import BATCH, Network, Prepared
from litedetr.photos.process import PhotoLimits, PhotoProcess
from litedetr.runtime import Exported

PHOTO_ENDINGS = {
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".heic", ".heif",
}  # fmt: skip
READERS = 4
"""Photos that are decoded while the model runs, each at its full size."""
LIMITS = PhotoLimits(seconds=10, seconds_per_megapixel=0.3, megabytes=2500)
"""Of decoding one of them: nobody waits for it at a page."""

Line = dict[str, Any]


@dataclass(frozen=True)
class BatchReport:
    """What a run over many photos came to.

    Attributes:
        photos: asked for; known: of them, those that the file had already.
        seconds: of detecting the rest, with decoding; refused: file -> the sentence why it cannot be used.
    """

    photos: int
    known: int
    seconds: float
    refused: dict[str, str]

    def summary(self) -> str:
        """A line, and one more for each refused file of the first ten."""
        new = self.photos - self.known
        before = f", {self.known:,} of them before" if self.known else ""
        speed = f" in {self.seconds:.1f} s: {new / self.seconds:.1f} photos/s" if new and self.seconds else ""
        lines = [f"{self.photos:,} photos{before}{speed}; {len(self.refused):,} could not be used"]
        lines += [f"  {printable(file)}: {why}" for file, why in list(self.refused.items())[:10]]
        return "\n".join([*lines, *(["  …"] if len(self.refused) > 10 else [])])


def photo_files(paths: Iterable[Path]) -> list[Path]:
    """Files as they are, folders as the pictures in them (sorted, with subfolders, linked ones too); none twice."""
    files: list[Path] = []
    for path in paths:
        files += _pictures_in(path) if path.is_dir() else [path]
    return list(dict.fromkeys(files))


def _pictures_in(folder: Path) -> list[Path]:
    """Sorted; a folder that links lead to more than once, or around in a circle, is entered once."""
    found, entered = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders.sort()
        files = (Path(place, name) for name in names if Path(name).suffix.lower() in PHOTO_ENDINGS)
        found += [file for file in files if file.is_file()]
    return sorted(found)


def line_of(file: Path, found: Any) -> Line:
    """A photo's line: its ``file``, and ``width``, ``height`` and ``detections``, or the ``error`` that there is instead."""
    return {"file": str(file), **({"error": str(found)} if isinstance(found, PhotoError) else found.to_dict())}


def to_json(line: Line, encoding: str = "utf-8") -> str:
    """The line as text that this encoding can take, whatever a file's or a class' name; else with JSON's own escapes."""
    text = json.dumps(line, ensure_ascii=False)
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        text = json.dumps(line)
    return text + "\n"


def printable(text: str) -> str:
    """A file's name as a terminal can take it."""
    return text if text.isprintable() else repr(text)


def detect_many(
    detector: Network | Exported,
    files: Sequence[Path],
    out: Path,
    *,
    about: dict[str, Any],
    threshold: float | None = None,
    batch: int = BATCH,
    restart: bool = False,
    processes: Processes = ALONE,
    report: Callable[[str], None] | None = None,
) -> BatchReport:
    """Detect in all ``files`` and write a line for each to ``out``, in no order; files that have a line are left out, unless it
    says that they could not be used: those are tried again, and their line is replaced.

    Photos of one size in the network run together. Whole batches are written at once: a kill costs the batches in hand, which
    the next run does again. Each process but the first has a file of its own beside ``out`` until all are done.

    Args:
        about: what must be the same where a run is gone on with, e.g. the model's fingerprint; kept in ``out``.about.
        threshold: lowest score to keep; the model's own if None.
        batch: photos at once.
        restart: drop what was found before.
        processes: each does its share; they must see the same files and the same ``out``.
        report: told of each file that cannot be used, as it is met; standard error if None.

    Raises:
        ValueError: ``out`` is of something else, or is not seen by all processes, or another run is writing it.
    """
    with alone(out, processes):
        return _detect_many(detector, files, out, about, threshold, batch, restart, processes, report or _say)


def _detect_many(
    detector: Network | Exported, files: Sequence[Path], out: Path, about: dict[str, Any], threshold: float | None, batch: int,
    restart: bool, processes: Processes, report: Callable[[str], None],
) -> BatchReport:  # fmt: skip
    known = processes.from_first(lambda: _begin(out, about, restart, files))
    own = _part(out, processes.rank)
    _together(out, processes)
    rest = [file for file in files if str(file) not in known]
    started = time.perf_counter()
    with own.open("a", encoding="utf-8") as lines, ThreadPoolExecutor(READERS) as readers:
        canvases = _canvases(rest, detector, processes, readers)
        batches = _batches(rest, canvases, batch)[processes.rank :: processes.count]
        bar = tqdm(
            total=sum(map(len, batches)), unit="photo", disable=None if processes.first else True,
            desc="" if processes.count == 1 else f"process 1 of {processes.count}",
        )  # fmt: skip
        with bar:
            for done in _results(detector, batches, readers, threshold):
                _write(lines, done)
                for line in done:
                    if "error" in line:
                        report(f"{printable(line['file'])}: {line['error']}")
                bar.update(len(done))
        os.fsync(lines.fileno())
    seconds = processes.largest(time.perf_counter() - started)
    processes.gather(None)  # all have written
    everything = processes.from_first(lambda: _absorb(out))
    refused = {str(file): everything[str(file)] for file in files if everything.get(str(file))}
    return BatchReport(len(files), len(files) - len(rest), seconds, refused)


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


def _part(out: Path, rank: int) -> Path:
    return out if rank == 0 else out.with_name(f"{out.name}.part-{rank}")


def _begin(out: Path, about: dict[str, Any], restart: bool, files: Sequence[Path]) -> dict[str, str]:
    """What an earlier run found, of whatever number of processes: file -> its error, "" for none; without errors of ``files``."""
    note, parts = out.with_name(f"{out.name}.about"), list(_parts(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    if restart or (not parts and (not out.exists() or out.stat().st_size == 0)):
        for path in (out, note, *parts):
            path.unlink(missing_ok=True)
    elif not note.is_file():
        raise ValueError(f"expected a file that this command wrote in {out}, got another one: give another --out, or --restart")
    changed = begin(note, about)
    if changed:
        raise ValueError(
            f"expected the run that {out} was begun with, got another one: {'; '.join(changed)}. Give another --out, or "
            "--restart to do it all again"
        )
    known, asked = _absorb(out), set(map(str, files))
    again = {file for file, error in known.items() if error and file in asked}
    if again or sum(1 for _ in _lines(out)) > len(known):
        kept, written = out.with_name(f"{out.name}.tmp"), set(again)
        with kept.open("w", encoding="utf-8") as lines:
            for file, line in _lines(out):
                if file not in written:  # a file that two runs wrote at once has some twice
                    written.add(file)
                    lines.write(to_json(line))
        kept.replace(out)
    return {file: error for file, error in known.items() if file not in again}


def _absorb(out: Path) -> dict[str, str]:
    """Bring the lines of all processes into ``out``, each file once; file -> its error, "" for none."""
    out.touch()
    known = {file: line.get("error", "") for file, line in _lines(out)}
    for part in _parts(out):
        with out.open("a", encoding="utf-8") as lines:
            for file, line in _lines(part):
                if file not in known:  # it is where a kill came between these lines and the last one
                    known[file] = line.get("error", "")
                    lines.write(to_json(line))
            lines.flush()
            os.fsync(lines.fileno())
        part.unlink()
    return known


def _lines(path: Path) -> Iterator[tuple[str, Line]]:
    for line in whole_lines(path):
        if not isinstance(line.get("file"), str):
            raise ValueError(
                f"expected a line with a file's name in {path}, got {str(line)[:40]}: give another --out, or --restart"
            )
        yield line["file"], line


def _parts(out: Path) -> Iterator[Path]:
    prefix = f"{out.name}.part-"
    if out.parent.is_dir():
        yield from sorted(path for path in out.parent.iterdir() if path.name.startswith(prefix))


def _together(out: Path, processes: Processes) -> None:
    if not all(processes.gather(out.exists())):
        raise ValueError(
            f"expected {out} in a folder that all processes share, and some do not see it: put --out on a shared disk"
        )


def _write(lines: IO[str], done: list[Line]) -> None:
    lines.write("".join(map(to_json, done)))
    lines.flush()


def _canvases(
    files: Sequence[Path], detector: Network | Exported, processes: Processes, readers: ThreadPoolExecutor
) -> list[tuple[int, int]]:
    """The size of each photo in the network, by its header; (0, 0) where it has none that can be read."""
    config = detector.config

    def canvas(file: Path) -> tuple[int, int]:
        try:
            return resized_size(photo_size(file), config.short_side, config.long_side, config.size_divisor)
        except PhotoError:
            return 0, 0

    start, stop = processes.share(len(files))
    return [size for part in processes.gather(list(readers.map(canvas, files[start:stop]))) for size in part]


def _batches(files: Sequence[Path], canvases: Sequence[tuple[int, int]], count: int) -> list[list[Path]]:
    """Photos of one canvas, a few at a time; large ones first, so that too little memory is seen at once."""
    groups: dict[tuple[int, int], list[Path]] = {}
    for file, canvas in zip(files, canvases, strict=True):
        groups.setdefault(canvas, []).append(file)
    in_order = sorted(groups.items(), key=lambda group: -group[0][0] * group[0][1])
    return [members[start : start + count] for _, members in in_order for start in range(0, len(members), count)]


def _results(
    detector: Network | Exported, batches: Sequence[list[Path]], readers: ThreadPoolExecutor, threshold: float | None
) -> Iterator[list[Line]]:
    """Every batch's lines. As many batches run at once as there are processors, each with one thread, because threads of one run
    wait for each other; the next one is decoded meanwhile."""
    photos, threads = PhotoProcess(LIMITS), torch.get_num_threads()
    at_once = threads if isinstance(detector, Network) and detector.device.type == "cpu" else 1

    def read(file: Path) -> Prepared | PhotoError:
        try:
            return detector.prepare(photos.open(file))
        except PhotoError as error:
            return error

    def look(files: list[Path], coming: list[Future]) -> list[Line]:
        torch.set_num_threads(threads // at_once)
        given = [future.result() for future in coming]
        good = [item for item in given if not isinstance(item, PhotoError)]
        found = iter(detector.predict_prepared(good, threshold, max(1, len(good))))
        return [
            line_of(file, item if isinstance(item, PhotoError) else next(found)) for file, item in zip(files, given, strict=True)
        ]

    running: deque[Future] = deque()
    runners = ThreadPoolExecutor(at_once)
    try:
        for files in batches:
            running.append(runners.submit(look, files, [readers.submit(read, file) for file in files]))
            if len(running) > at_once:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        runners.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
