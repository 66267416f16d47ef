"""Engine: photo and model -> `Run`, kept in a byte-bounded store under an unguessable id."""

from __future__ import annotations

import io
import logging
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from app.engine.gpu import Gpu
from app.engine.jobs import Cancelled as Cancelled
from app.engine.jobs import News, Orders, Tell
from app.engine.models import Models
from app.engine.out_of_memory import first_that_fits, sized
from app.engine.queue import Line
from app.run.model_list import describe
from app.run.progress import watch
from app.run.run import Run
from app.run.state import HUB_ID, ViewState
from app.views import view_of
from litedetr import Detections, Detector
from litedetr import image as photos
from litedetr.cost import gmacs
from litedetr.fast.memory import give_back, one_arena
from litedetr.ops import native

log = logging.getLogger(__name__)
T = TypeVar("T")

EXAMPLES = Path(__file__).resolve().parents[2] / "assets" / "examples"
EXAMPLE_NAMES = ("astronaut", "motorcycle", "cat", "coffee", "hopper")
SHOWN_SIDE = 1600
"""Longest side of the picture that the page shows; coordinates stay those of the photo."""
KEEP_SECONDS = 60 * float(os.environ.get("LITEDETR_KEEP_MINUTES", "60"))
"""A run that nobody looked into for so long is dropped, and a photo that was uploaded so long ago."""
STORE_BYTES = int(os.environ.get("LITEDETR_STORE_MB", "1024")) * 1024**2
ARRIVAL = 3.0
"""Seconds that an uploaded photo may take to its place."""
GIVE_BACK_BYTES = 256 * 1024**2
MODEL = os.environ.get("LITEDETR_MODEL", "embedded")


def _silent(news: News) -> None:
    """Nobody listens."""


class ExpiredRun(KeyError):
    """The run was dropped to make room, or never was."""


class RunStore:
    """Runs by id, the least recently used dropped first when their bytes pass the limit.

    Args:
        limit: bytes.
        keep: seconds after its last use in which `expire` leaves a run alone.
    """

    def __init__(self, limit: int = STORE_BYTES, keep: float = KEEP_SECONDS):
        self.limit, self.keep = limit, keep
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._used: dict[str, float] = {}
        self._freed = 0
        self._lock = threading.Lock()

    def put(self, run: Run) -> Run:
        """Keep a run; one that is larger than the limit is kept alone."""
        with self._lock:
            self._runs[run.id] = run
            self._use(run.id)
            self._trim()
        self._give_back()
        return run

    def trim(self) -> None:
        """Make room after a run grew by what was computed from it."""
        with self._lock:
            self._trim()
        self._give_back()

    def _trim(self) -> None:
        while len(self._runs) > 1 and self._bytes() > self.limit:
            self._drop()

    def _drop(self) -> None:
        name, run = self._runs.popitem(last=False)
        del self._used[name]
        self._freed += run.nbytes

    def _give_back(self) -> None:
        """What dropped runs held goes back to the system now and then; not each time, because that takes a while."""
        if self._freed > GIVE_BACK_BYTES:
            self._freed = 0
            give_back()

    def _use(self, run_id: str) -> None:
        self._runs.move_to_end(run_id)
        self._used[run_id] = time.monotonic()

    def expire(self) -> int:
        """Drop what nobody looked into for long; how many."""
        with self._lock:
            before = len(self._runs)
            while self._runs and time.monotonic() - self._used[next(iter(self._runs))] > self.keep:
                self._drop()
            dropped = before - len(self._runs)
        self._give_back()
        return dropped

    def get(self, run_id: str) -> Run:
        """The run, now the most recently used.

        Raises:
            ExpiredRun: it is not here (any more).
        """
        with self._lock:
            try:
                self._use(run_id)
            except (KeyError, TypeError):
                raise ExpiredRun(run_id) from None
            return self._runs[run_id]

    def __contains__(self, run_id: str) -> bool:
        with self._lock:
            return run_id in self._runs

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        with self._lock:
            return self._bytes()

    def _bytes(self) -> int:
        return sum(run.nbytes for run in self._runs.values())


class Engine:
    """Models and the runs that they made.

    Args:
        source: of the page's own model: "embedded", a local folder, or "owner/name" on the Hub.
        store: where runs are kept.
    """

    def __init__(self, source: str = MODEL, store: RunStore | None = None):
        self.models = Models(source)
        self.gpu = Gpu(self.models)
        self.store = RunStore() if store is None else store
        self.orders = Orders()
        self.line = Line()
        self._examples: dict[tuple[str, str], str] = {}
        one_arena()
        torch.set_num_threads(max(1, min(os.cpu_count() or 1, 8)))

    @property
    def detector(self) -> Detector:
        """The page's own model, loaded when first asked for.

        Raises:
            litedetr.weights.WeightsError: it cannot be loaded; the message says why.
        """
        return self.models.get()

    def example(self, name: str, tell: Tell | None = None, model: str = "") -> Run:
        """The run of an example picture, made once for all visitors and again when it was dropped. Arguments as in `run`."""
        if name not in EXAMPLE_NAMES:
            raise photos.PhotoError(f"There is no example called {name}: choose one of {', '.join(EXAMPLE_NAMES)}.")
        known = self._known(name, model)
        if known is not None:
            return known
        detector, tell = self._detector(model, tell), tell or _silent
        with self.line.turn(lambda before: tell({"waiting": before})):
            run = self._known(name, model)  # somebody before may have asked for the same
            if run is None:
                run = self.store.put(self._make(detector, EXAMPLES / f"{name}.jpg", name, tell, name, model))
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
        except Exception:
            log.exception("The model is not ready")

    def run(self, photo: photos.Photo, name: str = "photo", tell: Tell | None = None, model: str = "", keep: bool = True) -> Run:
        """Detect with a full trace and keep the result.

        Args:
            photo: a path, encoded bytes, a PIL image or an RGB array.
            name: of the picture.
            tell: told ``{"download": [bytes done, bytes in all]}`` while a model is downloaded, ``{"waiting": how many are
                before}`` in the line, and ``{"stage": name}`` as each stage begins: "backbone", "B1 high", …, "decoder 1", …
            model: a Hub id; "" for the page's own model.
            keep: False for a run that nobody will look into later.

        Raises:
            litedetr.image.PhotoError: the picture is broken, empty or too large.
            litedetr.weights.WeightsError: the model cannot be loaded.
            app.line.FullLine: too many wait for the model.
            app.memory.NoMemory: not even half the photo's size fits into memory.
            Cancelled: `tell` raised it.
        """
        detector, tell = self._detector(model, tell), tell or _silent  # a slow Hub keeps nobody else waiting
        photo = _arrived(photo)  # nor does an upload that is on its way
        with self.line.turn(lambda before: tell({"waiting": before})):
            run = self._make(detector, photo, name, tell, "", model)
        return self.store.put(run) if keep else run

    def _detector(self, model: str, tell: Tell | None) -> Detector:
        """The model; a page's own that is not here yet comes without a word, but not past an order that was cancelled."""
        news = None if tell is None else lambda done, total: tell({"download": [done, total]} if model else {})
        return self.gpu.own(self.models.get(model, news), model)

    def _make(self, detector: Detector, photo: photos.Photo, name: str, tell: Tell, example: str, model: str) -> Run:
        """The run itself, in the caller's turn: one picture is decoded at a time."""
        pixels = photos.open_photo(photo)

        def look(detector: Detector) -> tuple[Detector, Detections]:
            return detector, self._predict(detector, model, pixels, 0.0, True, tell)

        spared, (detector, detections) = self._within_memory(detector, model, look)
        return Run(
            id=secrets.token_urlsafe(18),
            name=name,
            model=describe(detector.config),
            source=model,
            picture=_shown(pixels),
            detections=detections,
            config=detector.config,
            cost=gmacs(detector.config, detections.trace.geometry.padded),
            photo=_lasting(photo, pixels),
            example=example,
            spared=spared,
        )

    def _predict(
        self, detector: Detector, model: str, pixels: np.ndarray, threshold: float | None, trace: bool, tell: Tell = _silent
    ) -> Detections:
        """A model looks at a photo: on a GPU that is lent for it, or where the detector is. No news comes from a lent one."""
        found = self.gpu.borrow(detector, model, pixels, threshold, trace)
        if found is None:
            with watch(detector, lambda _, stage: tell({"stage": stage})):
                found = detector.predict(pixels, threshold=threshold, trace=trace)
        return found

    def _within_memory(self, detector: Detector, model: str, act: Callable[[Detector], T]) -> tuple[str, T]:
        """What `act` gives with this detector, or with one that needs less memory where there is not enough: "" and that, or
        "smaller" (half the size of the photo) or "cpu" and that."""
        c = detector.config
        ways = [
            ("", lambda: act(detector)),
            ("smaller", lambda: act(sized(detector, c.short_side // 2, c.long_side // 2))),
        ]
        if detector.device.type != "cpu":
            ways.append(("cpu", lambda: act(self.models.get(model))))
        return first_that_fits(ways)

    def compute(self, run: Run, state: ViewState, tell: Tell) -> str | None:
        """What the state's view needs the model again for, kept with the run.

        Args:
            tell: told ``{"waiting": how many are before}`` in the line, then ``{"share": done in [0, 1], "text": what goes on}``.

        Returns:
            The result's key in ``run.extras``; None where the view needs nothing.

        Raises:
            Cancelled: `tell` raised it.
            litedetr.weights.WeightsError: a second model cannot be loaded.
        """
        view = view_of(state.view)
        key = view.job(run, state)
        if key is None or key in run.extras:
            return key

        def begun(share: float, text: str) -> None:
            tell({"share": share, "text": text})

        def detectors(source: str = "", plain: bool = False) -> Detector:
            detector = self.models.get(source, plain=plain)
            alike = run.spared and source == run.source  # what is compared with the run sees the photo as the run did
            return sized(detector, run.config.short_side, run.config.long_side) if alike else detector

        if HUB_ID.match(state.other):
            self.models.get(state.other, lambda *_: begun(0.0, ""))  # a slow Hub keeps nobody else waiting
        with self.line.turn(lambda before: tell({"waiting": before})):
            begun(0.0, "")
            _, made = first_that_fits([("", lambda: view.work(run, state, detectors, begun))])
        run.extras.put(key, made)
        self.store.trim()
        return key

    def detect(self, photo: photos.Photo, threshold: float | None = None) -> Detections:
        """Detections alone: nothing is traced and nothing is kept."""
        detector, photo = self._detector("", None), _arrived(photo)
        with self.line.turn():
            pixels = photos.open_photo(photo)
            return self._within_memory(detector, "", lambda chosen: self._predict(chosen, "", pixels, threshold, False))[1]


def _arrived(photo: photos.Photo) -> photos.Photo:
    """The photo, once it is there: Gradio brings an upload to its place after it has told the visitor where that is."""
    if isinstance(photo, str | Path):
        until = time.monotonic() + ARRIVAL
        while not os.path.exists(photo) and time.monotonic() < until:
            time.sleep(0.02)
    return photo


def _lasting(photo: photos.Photo, pixels: np.ndarray) -> bytes | np.ndarray:
    """What gives the same pixels when the visitor's file is gone: the encoded picture, or the pixels themselves."""
    if isinstance(photo, str | Path):
        return Path(photo).read_bytes()
    return photo if isinstance(photo, bytes) else pixels


def _shown(pixels) -> bytes:
    """RGB array -> the JPEG that the page shows."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
