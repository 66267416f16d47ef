"""Engine: photo and model -> `Run`, kept in the store."""

from __future__ import annotations

import io
import logging
import math
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from PIL import Image

from app.engine.foreground import Foreground, Pauses
from app.engine.gpu import LENT, Gpu
from app.engine.jobs import Event, Jobs, Report
from app.engine.models import Models
from app.engine.out_of_memory import first_that_fits, out_of_memory, sized
from app.engine.queue import Client, Queue
from app.engine.store import ExpiredRun, RunStore
from app.engine.time_limit import LONGEST, Deadline, Pace, Watch
from app.i18n import say
from app.run.model_list import MODEL, describe, named
from app.run.progress import report_stages
from app.run.run import Run
from app.run.state import HUB_ID, ViewState
from app.views import view_of
from litedetr import Detections, Detector
from litedetr import image as photos
from litedetr.cost import Cost, gmacs
from litedetr.fast.allocator import one_arena
from litedetr.guests.detector import GuestDetector
from litedetr.image import resized_size
from litedetr.ops import native
from litedetr.photos import decode
from litedetr.photos.process import PhotoProcess
from litedetr.processors import granted
from litedetr.replay import step_cache
from litedetr.weights import WeightsError
from litedetr.weights.errors import why

log = logging.getLogger(__name__)
T = TypeVar("T")

EXAMPLES = Path(__file__).resolve().parents[2] / "assets" / "examples"
EXAMPLE_NAMES = ("astronaut", "motorcycle", "cat", "coffee", "hopper")
SHOWN_SIDE = 1600
"""Longest side of the picture that the page shows; coordinates stay those of the photo."""
STEPS_BYTES = 128 * 1024**2
"""For the steps of all runs that visitors look at now: they are made again when somebody reads them (`litedetr.replay`). A
quarter of it more for what the last runs do not keep."""
NOBODY = Client()
MOST_THREADS = 8
AT_ONCE = 2
"""So many photos are looked at together where others wait, with as many threads less each: two threads of one run wait for each
other, two runs do not."""


def _place(report: Report) -> Callable[[int], None]:
    """Reports a place in the queue."""
    return lambda before: report({"waiting": before} if before else {})


def _silent(event: Event) -> None:
    """Nobody listens."""


class Engine:
    """Models and the runs that they made.

    Args:
        source: of the page's own model: "embedded", a local folder, or "owner/name" on the Hub.
        store: where runs are kept.
    """

    def __init__(self, source: str = MODEL, store: RunStore | None = None):
        self.processors = min(granted(), MOST_THREADS)
        self.models = Models(source)
        self.gpu = Gpu(self.models)
        self.store = RunStore() if store is None else store
        self.steps = step_cache(STEPS_BYTES, least=4)
        self.jobs = Jobs()
        self.queue = Queue(at_once=1 if LENT or torch.cuda.is_available() else min(AT_ONCE, self.processors))
        self.looks = Foreground()
        self.photos = PhotoProcess()
        self.pace = Pace()
        self._pictures = ThreadPoolExecutor(1)
        self._examples: dict[tuple[str, str], str] = {}
        one_arena()
        torch.set_num_threads(self.processors)

    @property
    def detector(self) -> Detector:
        """The page's own model, loaded when first asked for.

        Raises:
            litedetr.weights.WeightsError: it cannot be loaded; the message says why.
        """
        return self.models.get()

    def example(self, name: str, report: Report | None = None, model: str = "", client: Client = NOBODY) -> Run:
        """The run of an example picture, made once for all visitors and again when it was dropped. Arguments as in `run`."""
        if name not in EXAMPLE_NAMES:
            raise photos.PhotoError(f"There is no example called {name}: choose one of {', '.join(EXAMPLE_NAMES)}.")
        known = self._known(name, model)
        if known is not None:
            return known
        detector, report = self._detector(model, report), report or _silent
        with self.queue.turn(client, _place(report), alone=_alone(detector)):
            run = self._known(name, model)  # somebody before may have asked for the same
            if run is None:
                photo = EXAMPLES / f"{name}.jpg"
                made = self._make(detector, photo.read_bytes(), photos.open_small(photo), name, report, name, model)
                run = self.store.put(made, None if self.models.trusts(model) else client)
                self._examples[model, name] = run.id
            return run

    def _known(self, example: str, model: str) -> Run | None:
        try:
            return self.store.get(self._examples.get((model, example)))
        except ExpiredRun:
            return None

    def warm_up(self) -> None:
        """Load the model and have the first example ready, while its kernel is built where that was never done; failures are
        logged."""
        native.prepare_in_background()
        try:
            self.example(EXAMPLE_NAMES[0])
            self.photos.start()
        except Exception:
            log.exception("The model is not ready")

    def run(
        self, photo: photos.Photo, name: str = "photo", report: Report | None = None, model: str = "", keep: bool = True,
        client: Client = NOBODY,
    ) -> Run:  # fmt: skip
        """Detect with a full trace and keep the result.

        Args:
            photo: a path or encoded bytes, decoded in a process of its own while others have the model; a PIL image or an RGB
                array, which are trusted.
            name: of the picture.
            report: called with ``{"download": [bytes done, bytes in all]}`` while a model is downloaded, ``{"waiting": how many
                are before}`` in the queue, and ``{"stage": name}`` as each stage begins: "backbone", "B1 high", …, "decoder 1", …
            model: a Hub id; "" for the page's own model.
            keep: False for a run that nobody will look into later.
            client: who waits.

        Raises:
            litedetr.image.PhotoError: the picture is broken, empty or too large.
            litedetr.weights.WeightsError: the model cannot be loaded.
            app.engine.queue.QueueFull: too many wait for the model.
            app.engine.time_limit.TooSlow: a model that is not the host's takes longer than it may.
            app.engine.out_of_memory.NoMemory: not even half the photo's size fits into memory.
            Cancelled: `report` raised it.
        """
        detector, report = self._detector(model, report), report or _silent  # a slow Hub keeps nobody else waiting
        with self.queue.turn(client, _place(report), partial(self._decoded, photo), _alone(detector)) as (lasting, opened):
            run = self._make(detector, lasting, opened, name, report, "", model)
        return self.store.put(run, client) if keep else run

    def _detector(self, model: str, report: Report | None) -> Detector:
        """The model; the page's own is loaded without an event, but not for a job that was cancelled."""
        progress = None if report is None else lambda done, total: report({"download": [done, total]} if model else {})
        return self.gpu.own(self.models.get(model, progress), model)

    def _share_processors(self) -> None:
        """In one's turn: this thread's part of the processors, all of them where nobody waits."""
        torch.set_num_threads(max(1, self.processors // (self.queue.at_once if len(self.queue) > 1 else 1)))

    def _decoded(self, photo: photos.Photo, poll: Callable[[], object]) -> tuple[bytes | np.ndarray, photos.Opened]:
        """What gives the same pixels when the visitor's file is gone, the encoded picture or the pixels themselves; and the photo
        as a detector takes it. `poll` as in `PhotoProcess.open`."""
        if isinstance(photo, str | Path):
            photo = _content(photo)
        opened = self.photos.open(photo, poll) if isinstance(photo, bytes) else photos.open_small(photo)
        return photo if isinstance(photo, bytes) else opened.pixels, opened

    def _make(
        self, detector: Detector, lasting: bytes | np.ndarray, opened: photos.Opened, name: str, report: Report, example: str,
        model: str,
    ) -> Run:  # fmt: skip
        """The run itself, in the caller's turn."""
        self._share_processors()

        def look(detector: Detector) -> tuple[Detector, Detections]:
            return detector, self._predict(detector, model, opened, 0.0, "light", report)

        picture = self._pictures.submit(shown_picture, opened.pixels)
        spared, (detector, detections) = self._within_memory(detector, model, look)
        return Run(
            id=secrets.token_urlsafe(18),
            name=name,
            model=named(model or self.models.own, detector.config),
            source=model,
            picture=picture.result(),
            detections=detections,
            config=detector.config,
            cost=_cost(detector, detections.trace.geometry.padded),
            photo=lasting,
            example=example,
            spared=spared,
        )

    def _predict(
        self,
        detector: Detector,
        model: str,
        opened: photos.Opened,
        threshold: float | None,
        trace: bool | Literal["light"],
        report: Report = _silent,
    ) -> Detections:
        """A model looks at a photo: on a GPU that is lent for it, or where the detector is. From a lent one come no events, and
        whole traces."""
        found = self.gpu.borrow(detector, model, opened, threshold, bool(trace))
        if found is not None:
            return found
        work = _work(detector, opened)
        trusted = self.models.trusts(model)
        deadline = Deadline(math.inf) if trusted else self.pace.deadline(work)
        pauses = Pauses(self.looks)

        def begun(_: float, stage: str) -> None:
            deadline.check()
            report({"stage": stage})
            pauses.stage()

        try:
            with report_stages(detector, begun, pauses.part), nullcontext() if trusted else Watch(deadline.check):
                found = detector.predict(opened, threshold=threshold, trace=trace, cache=self.steps)
        except (ValueError, RuntimeError, IndexError, TypeError, ZeroDivisionError) as error:
            if not model or out_of_memory(error):
                raise
            raise WeightsError(
                f"expected a model that can look at this photo, and {model} cannot ({why(error)}): choose another model"
            ) from error
        self.pace.note(work, deadline.passed)
        return found

    def _within_memory(self, detector: Detector, model: str, act: Callable[[Detector], T]) -> tuple[str, T]:
        """What `act` gives with this detector, or with one that needs less memory where there is not enough: "" and that, or
        "smaller" (half the size of the photo) or "cpu" and that."""
        c = detector.config
        ways = [("", lambda: act(detector))]
        if not isinstance(detector, GuestDetector):  # those of transformers have one size
            ways.append(("smaller", lambda: act(sized(detector, c.short_side // 2, c.long_side // 2))))
        if detector.device.type != "cpu":
            ways.append(("cpu", lambda: act(self.models.get(model))))
        return first_that_fits(ways)

    def compute(self, run: Run, state: ViewState, report: Report, client: Client = NOBODY) -> str | None:
        """What the state's view needs the model again for, kept with the run.

        Args:
            report: called with ``{"waiting": how many are before}`` in the queue, then ``{"share": done in [0, 1], "text": what
                goes on}``.
            client: who waits.

        Returns:
            The result's key in ``run.extras``; None where the view needs nothing.

        Raises:
            Cancelled: `report` raised it.
            app.engine.time_limit.TooSlow: it took longer than it may.
            litedetr.weights.WeightsError: a second model cannot be loaded.
        """
        view = view_of(state.view, run)
        key = view.job(run, state)
        if key is None or key in run.extras:
            return key

        deadline = Deadline(math.inf)  # while it waits

        def begun(share: float, text: str) -> None:
            deadline.check()
            report({"share": share, "text": text})

        def detectors(source: str = "", plain: bool = False) -> Detector:
            detector = self.models.get(source, plain=plain)
            if view.own and isinstance(detector, GuestDetector):
                raise WeightsError(say(state.lang, "needs.own", model=describe(detector.config)))
            alike = run.spared and source == run.source  # what is compared with the run sees the photo as the run did
            return sized(detector, run.config.short_side, run.config.long_side) if alike else detector

        def fetched(done: int, total: int) -> None:
            key = "status.converting" if 0 < total <= done else "status.download"
            size = {"done": f"{done / 1e6:.0f}", "all": f"{total / 1e6:.0f}"}
            begun(done / max(total, 1), say(state.lang, key, model=state.other, **size) if total else "")

        if HUB_ID.match(state.other):
            self.models.get(state.other, fetched)  # a slow Hub keeps nobody else waiting
        with self.queue.turn(client, _place(report), alone=True):
            torch.set_num_threads(self.processors)
            deadline = Deadline(3 * LONGEST)
            begun(0.0, "")
            with Watch(deadline.check):
                _, made = first_that_fits([("", lambda: view.work(run, state, detectors, begun))])
        run.extras.put(key, made)
        self.store.trim()
        return key

    def detect(self, photo: photos.Photo, threshold: float | None = None, client: Client = NOBODY) -> Detections:
        """Detections alone: nothing is traced and nothing is kept."""
        detector = self._detector("", None)
        with self.queue.turn(client, None, partial(self._decoded, photo), _alone(detector)) as (_, opened):
            self._share_processors()
            return self._within_memory(detector, "", lambda chosen: self._predict(chosen, "", opened, threshold, False))[1]


def _work(detector: Detector | GuestDetector, opened: photos.Opened) -> float:
    """About how many GMACs a photo takes, before it is looked at."""
    c = detector.config
    if isinstance(detector, GuestDetector):
        return detector.cost(c.size).total
    return gmacs(c, resized_size(opened.size, c.short_side, c.long_side, c.size_divisor)).total


def _alone(detector: Detector | GuestDetector) -> bool:
    """Whether a detector looks at one photo at a time: what watches those of transformers would see two."""
    return isinstance(detector, GuestDetector)


def _cost(detector: Detector | GuestDetector, size: tuple[int, int]) -> Cost:
    return detector.cost(size) if isinstance(detector, GuestDetector) else gmacs(detector.config, size)


def _content(path: str | Path) -> bytes:
    """A visitor's file.

    Raises:
        litedetr.image.PhotoError: it is not there, or may not be read.
    """
    try:
        return decode.source(path).read_bytes()
    except OSError as error:  # it went just now
        raise photos.PhotoError(f"There is no picture called {Path(path).name} that may be read: check the path.") from error


def shown_picture(pixels: np.ndarray) -> bytes:
    """RGB array -> the JPEG that the page shows."""
    height, width = pixels.shape[:2]
    scale = min(1.0, SHOWN_SIDE / max(height, width))
    picture = Image.fromarray(photos.resize(pixels, (max(1, round(height * scale)), max(1, round(width * scale)))))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
