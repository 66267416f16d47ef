"""Which models the page offers, which ones a visitor may have loaded, and the few that are in memory.

Environment variables of the host:
    LITEDETR_MODELS, LITEDETR_PUBLISHED: the page's list (`app.run.model_list`), whose models are trusted.
    LITEDETR_HUB: "off" takes away the box for any other model on the Hub.
    LITEDETR_OWNERS: "owner,other": the box takes models of these owners alone.
    LITEDETR_LARGEST_MB: of a model from the box, as a file and in memory (1000).
    LITEDETR_LARGEST_GMACS: of a model from the box, for one photo (1000).
    LITEDETR_LARGEST_MEMORY_MB: that a model from the box may need for one photo, beyond its weights (3000).
    LITEDETR_CACHE_MB: disk for all models from the box, at least twice LITEDETR_LARGEST_MB (5000); those unused for longest go.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from huggingface_hub import constants

from app.engine.loading import Loading
from app.engine.trial import try_apart
from app.run.model_list import listed
from app.run.state import HUB_ID
from app.settings import number
from litedetr import Detector
from litedetr.config import preset
from litedetr.guests.detector import GuestDetector
from litedetr.guests.folder import find, load
from litedetr.weights import Progress, WeightsError
from litedetr.weights.limits import Limits, check_work
from litedetr.weights.published import catalogue

IN_MEMORY = 2
_NUMBERS = {"LARGEST_MB": 1000.0, "LARGEST_GMACS": 1000.0, "LARGEST_MEMORY_MB": 3000.0, "CACHE_MB": 5000.0}
AT_ONCE = 2
"""So many models come from the Hub at a time: one that is slow does not keep the next."""


def hub_is_open() -> bool:
    """Whether a visitor may name any model on the Hub."""
    return os.environ.get("LITEDETR_HUB", "on").strip().lower() not in ("off", "no", "0", "false")


def limits() -> Limits:
    """What a model from the box may be; it lies in a folder beside huggingface_hub's cache, which stays the host's own."""
    largest, gmacs, memory, cache = (number(name, value) for name, value in _NUMBERS.items())
    return Limits(
        file_bytes=int(largest * 10**6),
        gmacs=gmacs,
        memory_bytes=int(memory * 10**6),
        cache=Path(constants.HF_HUB_CACHE).with_name("litedetr-visitors"),
        cache_bytes=int(max(cache, 2 * largest) * 10**6),
        advice=", or raise LITEDETR_LARGEST_MB, LITEDETR_LARGEST_GMACS or LITEDETR_LARGEST_MEMORY_MB where the page runs",
    )


Pair = tuple[Detector, Detector] | tuple[GuestDetector, GuestDetector]
"""A model optimized for inference, and as it was loaded."""


def admit(source: str) -> None:
    """Refuse a name that a visitor may not have loaded.

    Raises:
        WeightsError: says what may be chosen instead.
    """
    # Folders of this machine are nobody's business.
    if not HUB_ID.match(source) or Path(source).exists():
        raise WeightsError(f'expected a model\'s name on the Hub like "owner/name", got {source[:80]!r}: check the spelling.')
    if not hub_is_open():
        raise WeightsError("This page loads the models of its list alone: choose one of them.")
    owners = [owner.strip() for owner in os.environ.get("LITEDETR_OWNERS", "").split(",") if owner.strip()]
    if owners and source.split("/")[0].lower() not in map(str.lower, owners):
        raise WeightsError(f"This page loads models of {', '.join(owners)} alone, and those of its list: choose one of them.")


class Models:
    """At most `IN_MEMORY` models: the page's own, which stays, and the last ones asked for.

    Args:
        own: source of the page's own model: "embedded", a folder or a Hub id.
    """

    def __init__(self, own: str):
        self.own = own
        self._loaded: OrderedDict[str, Pair] = OrderedDict()
        self._loading: dict[str, Loading[Pair]] = {}
        self._tried: set[frozenset[str]] = set()
        self._slots = threading.Semaphore(AT_ONCE)
        self._lock = threading.Lock()

    def get(self, source: str = "", progress: Progress | None = None, plain: bool = False) -> Detector | GuestDetector:
        """A model, loaded where it is not in memory.

        Args:
            source: a Hub id; "" for the page's own model.
            progress: called with (bytes done, bytes in all) while it is downloaded; what it raises ends the wait, and the
                download where nobody else waits for it.
            plain: not optimized for inference, for what looks inside it.

        Raises:
            WeightsError: it cannot be loaded; the message says why.
        """
        source = source or self.own
        if not self.trusts(source):
            admit(source)
        with self._lock:
            if source in self._loaded:
                self._loaded.move_to_end(source)
                return self._loaded[source][plain]
            if source not in self._loading:
                slot = nullcontext() if source == self.own else self._slots
                self._loading[source] = Loading(partial(self._load, source), slot)
            loading = self._loading[source]
            loading.join()
        try:
            return loading.result(progress or _silent)[plain]
        finally:
            with self._lock:
                loading.leave()
                if not loading.waiting and self._loading.get(source) is loading:
                    del self._loading[source]

    def _load(self, source: str, progress: Progress) -> Pair:
        with self._lock:
            self._make_room()
        # This machine's token opens only what the page offers.
        terms = {} if self.trusts(source) else {"token": False, "limits": limits()}
        if terms:
            terms["revision"] = self._tried_out(source, progress, **terms)
        known = listed().get(source)
        if known is not None and known.source in catalogue():
            check_work(preset(catalogue()[known.source].preset), known.name, limits())
        loaded = load(source if known is None else known.source, progress=progress, **terms)
        # In bfloat16 outputs could not be rebuilt from the points to 1e-5.
        pair = loaded.optimize("float32"), loaded
        with self._lock:
            self._make_room()
            self._loaded[source] = pair
        return pair

    def _tried_out(self, source: str, progress: Progress, token: bool, limits: Limits) -> str:
        """Download a model and have it look at its first photo elsewhere, once for the same files; the commit, because something
        else may be pushed meanwhile."""
        share = 0, 0

        def downloaded(done: int, total: int) -> None:
            nonlocal share
            share = done, total
            progress(done, total)

        folder = find(source, token=token, progress=downloaded, limits=limits)
        # In the cache they are links to files that are called by what they hold.
        files = frozenset(file.resolve().name if file.is_symlink() else str(file) for file in folder.iterdir())
        if files not in self._tried:
            try_apart(folder, source, limits, lambda: progress(*share))
            self._tried.add(files)
        return folder.name

    def trusts(self, source: str) -> bool:
        """Whether the host chose this model; "" is the page's own."""
        return source in ("", self.own) or source in listed()

    def _make_room(self) -> None:
        others = [source for source in self._loaded if source != self.own]
        while len(others) > IN_MEMORY - 2:
            del self._loaded[others.pop(0)]

    def __contains__(self, source: str) -> bool:
        return source in self._loaded


def _silent(done: int, total: int) -> None:
    """Nobody listens."""
