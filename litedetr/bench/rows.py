"""The rows: what is compared with what, at which size, and the limit of each."""

from __future__ import annotations

import datetime
import itertools
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from litedetr.bench import exported as forms
from litedetr.bench import guests as others
from litedetr.bench import ours, peak_memory, peers, stages, waiting
from litedetr.bench.core import LIMITS, CoreRow, core_ratios
from litedetr.bench.machine import machine, software
from litedetr.bench.pairs import DETECTORS, EMBEDDED, ENCODERS, PREDICT, Pair
from litedetr.bench.peers import Unavailable
from litedetr.bench.report import Report, Row
from litedetr.config import DetectorConfig, preset
from litedetr.cost import full_encoder
from litedetr.detector import Detector
from litedetr.export.graph import SAMPLING
from litedetr.timing import Contestant, Ratio, take_turns

Size = tuple[int, int]
Contestants = dict[str, Contestant | Unavailable]
NONE: Mapping[str, str] = MappingProxyType({})
RUNTIMES = ((".onnx", "ONNX Runtime", "f32"), (".xml", "OpenVINO", "f32"), (".xml", "OpenVINO", "bf16"))
"""Ending of an export, its runtime, the precision that it computes in."""
EXPORTED: dict[str, Callable[[], Detector]] = {
    "embedded model": lambda: Detector.from_pretrained("embedded"),
    "Lite-DINO-R50": lambda: ours.plain(preset("lite-dino-r50-h3l1-2x3")),
}


@dataclass(frozen=True)
class Plan:
    """What to measure, on what, how long.

    Attributes:
        groups: names of `GROUPS`.
        sizes: (height, width) for attention and encoder; photo: for whole detectors; large_photo: for the peak of memory.
        lite, embedded: the detectors; rt_detr, d_fine: what they are compared with.
        guests: models of other code bases, by name, and the sides of their photos.
        exported: detectors whose exports are measured, by name.
        rounds: how often each contestant's turn comes.
        threads: of every contestant; each group is measured once with each number. What needs no other number, or compares
            them with each other, is measured with the largest alone (`WITH_MOST_THREADS`).
    """

    groups: tuple[str, ...] = (
        "core", "encoder", "detector", "embedded", "predict", "exported", "threads", "memory", "visitor", "start", "bulk", "cuda"
    )  # fmt: skip
    sizes: tuple[Size, ...] = ((640, 640), (800, 1066))
    photo: Size = (640, 640)
    large_photo: Size = (800, 1066)
    lite: DetectorConfig = field(default_factory=lambda: preset("lite-dino-r50-h3l1-2x3"))
    embedded: DetectorConfig = field(default_factory=lambda: preset("lite-dino-nanodet-g"))
    rt_detr: Callable[[], nn.Module] = peers.rt_detr_r50
    d_fine: Callable[[], nn.Module] = peers.d_fine_n
    guests: dict[str, tuple[Callable[[], nn.Module], int]] = field(default_factory=lambda: dict(others.MODELS))
    exported: dict[str, Callable[[], Detector]] = field(default_factory=lambda: dict(EXPORTED))
    rounds: int = 5
    threads: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.groups) - set(GROUPS))
        if unknown:
            raise ValueError(f"expected rows out of {', '.join(GROUPS)}, got {', '.join(unknown)}")
        for name, least in (("rounds", self.rounds), ("threads", min(self.threads, default=0))):
            if least < 1:
                raise ValueError(f"expected {name} of at least 1, got {least}")


def measure(plan: Plan, progress: Callable[[str], None] = lambda group: None) -> Iterator[Report]:
    """Measures the plan's groups one after the other; gives the report so far after each, so that a stopped run keeps something.

    `progress` is called with each group before it begins.
    """
    before = torch.get_num_threads()
    report = Report((), plan.threads, plan.rounds, machine(), software(), datetime.date.today().isoformat())
    try:
        for group in plan.groups:
            for threads in (max(plan.threads),) if group in WITH_MOST_THREADS else plan.threads:
                progress(f"{group}, {threads} thread{'s' if threads > 1 else ''}")
                torch.set_num_threads(threads)
                rows = tuple(replace(row, threads=threads) for row in GROUPS[group](plan, threads))
                report = replace(report, rows=report.rows + rows)
                yield report
    finally:
        torch.set_num_threads(before)


# ------------------------------------------------------------------------------------------- attention alone


def core(plan: Plan, threads: int = 1) -> Iterator[Row]:
    """The attention kernels against PyTorch formulations of the same; see `litedetr.ops.benchmark`."""
    both = ("full", "high")
    for size in plan.sizes:
        for path in ("avx512", "avx2"):
            limited = [(kind, against) for kind, against, instructions in LIMITS if instructions == path]
            yield from _core_rows(plan, threads, size, path, both, limited)
        yield from _core_rows(plan, threads, size, "avx512", both, [("key-aware", "reference")])


def _core_rows(
    plan: Plan, threads: int, size: Size, path: str, queries: Sequence[str], pairs: Sequence[tuple[str, str]]
) -> Iterator[Row]:
    """One row for each of `queries` and each (kind of attention, other side) of `pairs`."""
    expected = [_core_row(size, asking, kind, against, path) for asking in queries for kind, against in pairs]
    found: dict[Row, CoreRow] = {}
    try:
        for kind, against in pairs:
            measured = core_ratios(
                size, kinds=(kind,), queries=queries, against=(against,), instructions=(path,), threads=threads,
                rounds=plan.rounds, width=plan.lite.width, heads=plan.lite.heads,
            )  # fmt: skip
            found |= {_core_row(size, row.queries, row.kind, row.against, path): row for row in measured}
    except (RuntimeError, ValueError) as error:  # no compiler, or a processor without these instructions
        yield from (row.missing(f"not measured: {error}") for row in expected)
    else:
        yield from (_with_core(row, found[row]) for row in expected)


def _core_row(size: Size, queries: str, kind: str, against: str, path: str) -> Row:
    attention = {"key-aware": "KDA", "plain": "deformable attention"}[kind]
    asking = {"full": "every token asks", "high": "the coarse tokens ask"}[queries]
    named = {"avx512": "AVX-512", "avx2": "AVX2"}[path]
    other = {
        "published": "as published (PyTorch, keys and values sampled apart)",
        "reference": "the reference op (PyTorch, sampled once)",
        "grid_sample": "transformers' form of it (grid_sample)",
    }[against]
    figure = f"{attention}, {named}, {asking} / {other}"
    return Row("core", figure, _text(size), "fraction", LIMITS.get((kind, against, path)))


def _with_core(row: Row, core: CoreRow) -> Row:
    return replace(
        row, value=core.ratio, lowest=core.lowest, highest=core.highest, ours=core.milliseconds, theirs=core.peer_milliseconds
    )


# ------------------------------------------------------------------------------------------- whole parts and models


def encoder(plan: Plan, threads: int = 1) -> Iterator[Row]:
    """The interleaved encoder against itself in PyTorch, and against the full one."""
    for size in plan.sizes:
        pixels = _pixels(size)
        contestants: Contestants = {
            "published": ours.encoder(plan.lite, pixels, None, backend="published"),
            "reference": ours.encoder(plan.lite, pixels, None, backend="reference"),
            "lite": ours.encoder(plan.lite, pixels, torch.float32),
            "lite bf16": ours.encoder(plan.lite, pixels, torch.bfloat16),
            "full": ours.encoder(full_encoder(plan.lite), pixels, torch.float32),
        }
        for schedule in ("H3L1-(6+1)x1", "H2L2-(2+1)x3"):
            contestants[schedule] = ours.encoder(replace(plan.lite, schedule=schedule), pixels, torch.float32)
        yield from compare("encoder", size, ENCODERS, contestants, plan.rounds, threads)


def detector(plan: Plan, threads: int = 1) -> Iterator[Row]:
    """The whole Lite-DINO-R50 against RT-DETR-R50."""
    pixels = _pixels(plan.photo)
    contestants: Contestants = {
        "lite": ours.whole(ours.optimised(plan.lite, torch.float32)[0], pixels),
        "lite bf16": ours.whole(ours.optimised(plan.lite, torch.bfloat16)[0], pixels),
        **_peer("rt-detr", plan.rt_detr, pixels, threads),
    }
    exact = {"lite bf16": "lite", "rt-detr openvino bf16": "rt-detr openvino f32"}
    yield from compare("detector", plan.photo, DETECTORS, contestants, plan.rounds, threads, exact)


def embedded(plan: Plan, threads: int = 1) -> Iterator[Row]:
    """The embedded model against D-FINE-N."""
    pixels = _pixels(plan.photo)
    contestants: Contestants = {
        "embedded": ours.whole(ours.optimised(plan.embedded, torch.float32)[0], pixels),
        "embedded bf16": ours.whole(ours.optimised(plan.embedded, torch.bfloat16)[0], pixels),
        **_peer("d-fine", plan.d_fine, pixels, threads),
    }
    exact = {"embedded bf16": "embedded", "d-fine openvino bf16": "d-fine openvino f32"}
    yield from compare("embedded", plan.photo, EMBEDDED, contestants, plan.rounds, threads, exact)


def exported(plan: Plan, threads: int = 1) -> Iterator[Row]:
    """Detectors on this project's own fast path against their exports, in every runtime that is installed."""
    for name, make in plan.exported.items():
        detector = make()
        pixels = forms.example(detector)
        contestants: Contestants = {
            "f32": ours.whole(detector.optimize("float32"), pixels),
            "bf16": ours.whole(detector.optimize("bfloat16"), pixels),
        }
        pairs = []
        with tempfile.TemporaryDirectory() as folder:
            for sampling, (suffix, runtime, precision) in itertools.product(SAMPLING, RUNTIMES):
                form = f"{runtime}, {precision}, {sampling}"
                arguments = (detector, pixels, Path(folder), sampling, suffix, threads, precision)
                contestants[form] = _attempt(partial(forms.in_runtime, *arguments))
                pairs.append(Pair(f"{name}, {precision} / its export, {form}", precision, form))
            exact = dict.fromkeys(contestants, "f32")
            yield from compare("exported", tuple(pixels.shape[2:]), pairs, contestants, plan.rounds, threads, exact)


def predict(plan: Plan, threads: int = 1) -> Iterator[Row]:
    """The embedded model's whole `predict` of a square photo at its own size, against D-FINE-N at its own."""
    photo = np.random.default_rng(0).integers(0, 256, (*plan.photo, 3), dtype=np.uint8)
    exact, short = (ours.optimised(plan.embedded, dtype)[0] for dtype in (torch.float32, torch.bfloat16))
    contestants: Contestants = {
        "f32": lambda: exact.predict(photo),
        "bf16": lambda: short.predict(photo),
        **_peer("d-fine", plan.d_fine, _pixels(plan.photo), threads),
    }
    yield from compare("predict", plan.photo, PREDICT, contestants, plan.rounds, threads)


def guests(plan: Plan, threads: int = 1) -> Iterator[Row]:
    """Whole models of transformers, with their attention on the kernels against as they are; asked for by name alone."""
    for name, (make, side) in plan.guests.items():
        pair = Pair(f"{name}, accelerated / as it is (eager PyTorch)", "accelerated", "eager")
        yield from compare("guests", (side, side), (pair,), _both(make, _pixels((side, side))), plan.rounds, threads)


def _both(make: Callable[[], nn.Module], pixels: Tensor) -> Contestants:
    """A model of transformers as it is, and the same one accelerated."""
    try:
        eager, accelerated = others.eager_and_accelerated(make(), {"pixel_values": pixels})
    except Unavailable as error:
        return {"accelerated": error, "eager": error}
    return {"accelerated": _attempt(lambda: accelerated), "eager": _attempt(lambda: eager)}


def compare(
    group: str, size: Size, pairs: Sequence[Pair], contestants: Contestants, rounds: int, threads: int,
    exact: Mapping[str, str] = NONE,
) -> Iterator[Row]:  # fmt: skip
    """Times all contestants in turns; one row a pair. `exact`: contestant -> whose detections it should have, in float32."""
    missing = {name: str(run) for name, run in contestants.items() if isinstance(run, Unavailable)}
    runs = {name: run for name, run in contestants.items() if not isinstance(run, Unavailable)}
    agrees = {
        name: forms.agree(runs[oracle](), runs[name](), size)
        for name, oracle in exact.items() if name != oracle and name in runs and oracle in runs
    }  # fmt: skip
    times = take_turns(runs, rounds)
    for pair in pairs:
        row = Row(group, pair.figure, _text(size), "ratio", pair.limit)
        why = missing.get(pair.ours) or missing.get(pair.theirs)
        if why:
            yield row.missing(why)
            continue
        own, other = times[pair.ours], times[pair.theirs]
        ratio = Ratio.of(own, other, threads)
        yield replace(
            row, value=ratio.value, lowest=ratio.lowest, highest=ratio.highest,
            ours=statistics.median(own.processor), theirs=statistics.median(other.processor),
            ours_wall=statistics.median(own.wall), theirs_wall=statistics.median(other.wall),
            ours_agrees=agrees.get(pair.ours), theirs_agrees=agrees.get(pair.theirs),
        )  # fmt: skip


def _peer(name: str, make: Callable[[], nn.Module], pixels: Tensor, threads: int) -> Contestants:
    """A model of transformers in every runtime that is installed."""
    return {
        name: _attempt(lambda: peers.in_pytorch(make(), pixels)),
        f"{name} onnxruntime": _attempt(lambda: peers.in_onnxruntime(make(), pixels, threads)),
        f"{name} openvino f32": _attempt(lambda: peers.in_openvino(make(), pixels, threads, "f32")),
        f"{name} openvino bf16": _attempt(lambda: peers.in_openvino(make(), pixels, threads, "bf16")),
    }


def _attempt(make: Callable[[], Contestant]) -> Contestant | Unavailable:
    """A contestant after its first run, or why there is none: what others' packages raise must not cost the other rows."""
    try:
        run = make()
        run()
    except Unavailable as error:
        return error
    except Exception as error:
        return Unavailable(f"not measured: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
    return run


# ------------------------------------------------------------------------------------------- memory, GPU


def memory(plan: Plan, threads: int = 1) -> Iterator[Row]:
    """What a whole run of Lite-DINO-R50 takes on top of its weights."""
    row = Row("memory", "Lite-DINO-R50, f32, peak of a whole process above the weights' size", _text(plan.large_photo), "GB", 1.2)
    during = Row("memory", "of it, by the run itself (peak of the run above what was resident before)", row.size, "GB")
    if not peak_memory.STATUS.is_file():
        yield from (each.missing("not measured: needs /proc, which Linux has") for each in (row, during))
        return
    found = peak_memory.measure(plan.lite, plan.large_photo, torch.float32, threads)
    yield replace(row, value=found.above_model / 1e9)
    yield replace(during, value=(found.run - found.ready) / 1e9)


def cuda(plan: Plan, threads: int = 1) -> Iterator[Row]:
    """The CUDA kernel's time, where there is a GPU."""
    row = Row("cuda", "KDA on an H200, f16, forward, every token asks", _text(plan.large_photo), "µs", 60)
    if not torch.cuda.is_available():
        yield row.missing("not yet run: no GPU here")
        return
    from litedetr.bench.cuda import times

    row = replace(row, figure=row.figure.replace("an H200", torch.cuda.get_device_name()))
    wanted = {"kinds": ("key-aware",), "queries": ("full",), "dtypes": (torch.float16,), "rounds": max(plan.rounds, 5)}
    try:
        found = next(figure for figure in times(plan.large_photo, **wanted) if figure.what == "forward")
    except RuntimeError as error:
        yield row.missing(f"not measured: {error}")
    else:
        yield replace(row, value=found.microseconds, lowest=found.lowest, highest=found.highest)


def several_threads(plan: Plan, threads: int = 1) -> Iterator[Row]:
    """What further threads are worth: the kernel, whole detectors and their stages with `threads` against the same with one, by
    the clock."""
    if threads == 1:
        yield Row("threads", "several threads / one", _text(plan.photo), "ratio").missing("not measured: give --threads 1,2")
        return
    for queries, asking in (("full", "every token asks"), ("high", "the coarse tokens ask")):
        pair = Pair(f"KDA, {asking}: {threads} threads / one", "many", "one", 0.55)
        run = stages.attention(plan.photo, queries, plan.lite.width, plan.lite.heads)
        yield from compare("threads", plan.photo, (pair,), _one_and_many(run, threads), plan.rounds, threads)
    for name, config, dtype in (
        ("embedded model, f32", plan.embedded, torch.float32), ("embedded model, bf16", plan.embedded, torch.bfloat16),
        ("Lite-DINO-R50, f32", plan.lite, torch.float32), ("Lite-DINO-R50, bf16", plan.lite, torch.bfloat16),
    ):  # fmt: skip
        for stage, run in stages.of(ours.optimised(config, dtype)[0], plan.photo).items():
            pair = Pair(f"{name}, {stage}: {threads} threads / one", "many", "one", 0.58 if stage == stages.WHOLE else None)
            yield from compare("threads", plan.photo, (pair,), _one_and_many(run, threads), plan.rounds, threads)


def _one_and_many(run: Contestant, threads: int) -> Contestants:
    return {"one": stages.with_threads(1, run), "many": stages.with_threads(threads, run)}


def visitor(plan: Plan, threads: int = 1) -> Iterator[Row]:
    """What a visitor with a large photo waits for on the server."""
    return waiting.visitor(plan.rounds)


def start(plan: Plan, threads: int = 1) -> Iterator[Row]:
    """What one waits for until the page is there, and its first answer."""
    return waiting.start()


def bulk(plan: Plan, threads: int = 1) -> Iterator[Row]:
    """A folder of photos against one photo after the other."""
    return waiting.bulk(plan.embedded, plan.rounds)


def _pixels(size: Size) -> Tensor:
    """A normalised picture of noise, (1, 3, height, width)."""
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))


def _text(size: Size) -> str:
    return "{}x{}".format(*size)


GROUPS: dict[str, Callable[[Plan, int], Iterator[Row]]] = {
    "core": core,
    "encoder": encoder,
    "detector": detector,
    "embedded": embedded,
    "predict": predict,
    "exported": exported,
    "threads": several_threads,
    "memory": memory,
    "visitor": visitor,
    "start": start,
    "bulk": bulk,
    "cuda": cuda,
    "guests": guests,
}
"""What can be asked for by name, in the table's order."""

WITH_MOST_THREADS = ("threads", "memory", "visitor", "start", "bulk", "cuda")
