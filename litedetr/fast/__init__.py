"""Detectors for inference alone: the same results from the same weights, sooner. `Detector.optimize` is the way in."""

from __future__ import annotations

from typing import Literal, NoReturn

import torch
from torch import Tensor, nn

from litedetr.fast.allocator import keep_freed_memory
from litedetr.fast.backbone import fast_backbone
from litedetr.fast.decoder import FastDecoder
from litedetr.fast.encoder import FastEncoder
from litedetr.fast.neck import fast_neck
from litedetr.fast.parts import fast_heads
from litedetr.fast.selection import fast_selection
from litedetr.network import Network
from litedetr.output import DenoisingQueries, DetectorOutput
from litedetr.replay import Replay, StepCache
from litedetr.timing import take_turns
from litedetr.trace import Trace

__all__ = ["FastDetector", "optimize"]

DTYPES = (torch.float32, torch.bfloat16)


class FastDetector(Network):
    """A detector for inference, made from another one, with which it shares nothing.

    `predict`, `predict_batch`, traces and `forward` without training's arguments are those of a detector. It cannot be trained,
    saved or moved: those raise `RuntimeError` and say what to do.

    Args:
        detector: it stays as it is.
        dtype: of the layers' weights and of what flows between them, float32 or bfloat16; photos, places and boxes stay float32.
    """

    def __init__(self, detector: Network, dtype: torch.dtype):
        nn.Module.__init__(self)
        self.config, self.dtype = detector.config, dtype
        self.backbone = fast_backbone(detector.backbone, dtype)
        self.neck = fast_neck(detector.neck, dtype)
        self.encoder = FastEncoder(detector.encoder, dtype)
        # Without two stages it makes reference points out of learned queries, which costs nothing.
        self.selection = fast_selection(detector.selection, dtype if self.config.two_stage else torch.float32)
        self.decoder = FastDecoder(detector.decoder, dtype)
        self.heads = fast_heads(detector.heads, dtype)
        self.dense_head = None
        self.training = False

    @torch.inference_mode()
    def forward(
        self,
        pixels: Tensor,
        mask: Tensor | None = None,
        *,
        denoising: DenoisingQueries | None = None,
        one_to_many: bool = False,
        dense: bool = False,
        trace: Trace | None = None,
    ) -> DetectorOutput:
        """As `Network.forward` without the arguments that only training has."""
        if denoising is not None or one_to_many or dense:
            self._refuse("trained")
        return super().forward(pixels, mask, trace=trace)

    def replay(self, cache: StepCache | None = None) -> Replay | None:
        # What asks for attention is rounded to bfloat16 once in the run, and would be rounded twice.
        return super().replay(cache) if self.dtype == torch.float32 else None

    def infer(self, pixels: Tensor, trace: Trace | None = None) -> DetectorOutput:
        """`forward`: photos stay float32 here, whatever the layers' dtype."""
        return self(pixels.to(self.device), trace=trace)

    def __deepcopy__(self, memo: dict) -> FastDetector:
        """Itself: nothing about it ever changes, and packed weights cannot be copied."""
        return self

    def optimize(self, dtype: str | torch.dtype = "auto") -> FastDetector:
        """Itself: it is already."""
        if dtype not in ("auto", self.dtype, str(self.dtype).removeprefix("torch.")):
            self._refuse(f"turned into {dtype}")
        return self

    def train(self, mode: bool = True) -> FastDetector:
        if mode:
            self._refuse("trained")
        return self

    def state_dict(self, *args, **kwargs) -> NoReturn:
        self._refuse("saved")

    def save_pretrained(self, folder, dtype: torch.dtype | None = None) -> NoReturn:
        self._refuse("saved")

    def _apply(self, fn, recurse: bool = True) -> NoReturn:
        self._refuse("moved to another device or dtype")

    def _refuse(self, what: str) -> NoReturn:
        raise RuntimeError(
            f"expected an ordinary detector, got one that was optimized for inference, which cannot be {what}: do that with the "
            "detector on which optimize() was called; it is unchanged"
        )


def optimize(detector: Network, dtype: Literal["auto", "float32", "bfloat16"] | torch.dtype = "auto") -> FastDetector:
    """See `Detector.optimize`. On the CPU, the process keeps freed memory from then on, see `litedetr.fast.allocator`."""
    if detector.device.type == "cpu":
        keep_freed_memory()
    names = {str(known).removeprefix("torch."): known for known in DTYPES}
    chosen = names.get(dtype, dtype)
    if chosen in DTYPES:
        return FastDetector(detector, chosen)
    if dtype != "auto":
        raise ValueError(f'expected a dtype out of "auto", {", ".join(names)}, got {dtype!r}')
    exact = FastDetector(detector, torch.float32)
    if detector.device.type != "cpu" or not bfloat16_is_native():
        return exact
    short = FastDetector(detector, torch.bfloat16)
    side = min(detector.config.short_side, TRIAL_SIDE)
    pixels = torch.zeros(1, 3, side, side)
    times = take_turns({"short": lambda: short(pixels), "exact": lambda: exact(pixels)}, TRIALS, shortest=0)
    return short if min(times["short"].processor) < 0.9 * min(times["exact"].processor) else exact


def bfloat16_is_native() -> bool:
    """Whether this CPU multiplies bfloat16 by itself; where it does not, bfloat16 is slower than float32."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # no public name says it
    return supported is not None and supported()


TRIAL_SIDE = 320
"""Side of the picture on which "auto" compares dtypes, where the model is not made for a smaller one: large enough to tell."""
TRIALS = 2
"""Of each dtype, the better one of which counts."""
