"""Photos through a model on a GPU, where there is one: the machine's own, or one that ZeroGPU lends for a call.

ZeroGPU runs the call in a process forked for it. What goes there and back is pickled: the model's name and the photo's pixels go,
the result comes back as bytes that hold CPU tensors alone, and everything that lasts stays in the page's own process.
"""

from __future__ import annotations

import copy
import io
import logging
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch

from app.engine.models import IN_MEMORY, Models
from app.engine.out_of_memory import out_of_memory, sized
from litedetr import Detections, Detector
from litedetr.image import Opened

log = logging.getLogger(__name__)

LENT = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true") and find_spec("spaces") is not None
"""Whether this is ZeroGPU. Its package makes PyTorch say that there is a GPU, in this process too, where there is none."""
NO_MEMORY = b""
"""The answer of a GPU whose memory is too small."""


def lent(function: Callable[..., bytes], duration: Callable[..., int]) -> Callable[..., bytes]:
    """The function as it is; on ZeroGPU, one that runs it on a GPU for at most ``duration(*its arguments)`` seconds."""
    if not LENT:
        return function
    import spaces  # only ZeroGPU has it for sure

    return spaces.GPU(function, duration=duration)


def seconds(source: str, opened: Opened, *_: Any) -> int:
    """How long a GPU is asked for: a process, CUDA and a model that begin, and the photo. Less is lent sooner."""
    height, width = opened.size
    return 10 + math.ceil(height * width / 10e6)


class Gpu:
    """The models of a page on a GPU.

    Args:
        models: they stay in the CPU's memory, where the views work with them.
    """

    def __init__(self, models: Models):
        self._models = models
        self._kept: OrderedDict[str, Detector] = OrderedDict()
        self._lock = threading.Lock()
        self._home = os.getpid()
        self._lent = lent(self._answer, seconds)

    def own(self, detector: Detector, source: str) -> Detector:
        """A detector on this machine's own GPU; the one given where there is none, or no room on it."""
        if LENT or not torch.cuda.is_available():
            return detector
        try:
            with self._lock:
                return self._on_gpu(source, self._models)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            log.warning("The model does not fit on the GPU, the CPU does it: %s", error)
            return detector

    def borrow(
        self, detector: Detector, source: str, opened: Opened, threshold: float | None, trace: bool
    ) -> Detections | None:
        """What a detector finds on a GPU that ZeroGPU lends; None where there is no ZeroGPU, or it lends none.

        Args:
            detector: whose config says how large the photo is seen.
            source: the model's name.
            opened: the photo.

        Raises:
            torch.OutOfMemoryError: the GPU's memory is too small.
        """
        if not LENT:
            return None
        import gradio as gr  # half of the page's imports, which the first answer need not wait for

        try:
            answer = self._lent(source, opened, (detector.config.short_side, detector.config.long_side), threshold, trace)
        except gr.Error as error:  # a quota is spent, no GPU is free, or its process ended
            log.warning("No GPU was lent, the CPU does it: %s", error)
            return None
        if answer == NO_MEMORY:
            raise torch.OutOfMemoryError("the GPU that ZeroGPU lent is out of memory")
        return unpacked(answer)

    def _answer(self, source: str, opened: Opened, sides: tuple[int, int], threshold: float | None, trace: bool) -> bytes:
        """The one function that ZeroGPU runs: `Detections` as bytes, or `NO_MEMORY`."""
        models = self._models
        if os.getpid() != self._home:
            torch.set_num_threads(1)  # the threads of OpenMP stayed behind in the page's process
            models = Models(models.own)  # so did the threads that may hold the locks of these
        try:
            detector = sized(self._on_gpu(source, models), *sides)
            return packed(detector.predict(opened, threshold=threshold, trace=trace))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return NO_MEMORY

    def _on_gpu(self, source: str, models: Models) -> Detector:
        """The model's copy on the GPU, the last `IN_MEMORY` kept; in a process of ZeroGPU, as long as that lives."""
        if source not in self._kept:
            while len(self._kept) >= IN_MEMORY:
                self._kept.popitem(last=False)
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self._kept[source] = copy.deepcopy(models.get(source, plain=True)).to(device).optimize("float32")
        self._kept.move_to_end(source)
        return self._kept[source]


def packed(detections: Detections) -> bytes:
    """With plain pickle each tensor would bring its whole storage, and as PyTorch pickles for processes a file would stay open
    for each."""
    buffer = io.BytesIO()
    torch.save(detections, buffer)
    return buffer.getvalue()


def unpacked(content: bytes) -> Detections:
    """What `packed` made, in this process or one forked from it, with all tensors on the CPU."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)
