"""Detector: a `Network` with weights, which come from a preset's random ones, from a folder or from the Hub, and go there."""

from __future__ import annotations

from pathlib import Path

import torch

from litedetr import fast, weights
from litedetr.config import preset
from litedetr.image import resized_size
from litedetr.network import Network
from litedetr.weights.errors import ANOTHER, WeightsError, why
from litedetr.weights.limits import Limits


class Detector(Network):
    """Photo -> `litedetr.Detections`."""

    @classmethod
    def from_preset(cls, name: str, **changes) -> Detector:
        """A detector with random weights, e.g. ``from_preset("lite-dino-r50-h3l1-2x3", num_classes=91)``."""
        return cls(preset(name, **changes))

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = "embedded",
        revision: str | None = None,
        token: str | bool | None = None,
        progress: weights.Progress | None = None,
        limits: Limits | None = None,
    ) -> Detector:
        """A detector with trained weights, in float32 and evaluation mode; this project's format or transformers'.

        Args:
            source: "embedded", "embedded/full" or "embedded/plain" (the same with the full encoder, or plain attention), a local
                folder, or "owner/name" on the Hub.
            revision: branch, tag or commit on the Hub.
            token: for the Hub; the one saved by ``hf auth login`` if None.
            progress: told (bytes done, bytes in all) while weights are downloaded.
            limits: of what a model may be that is not trusted, wherever it lies; None for one that is.

        Raises:
            litedetr.weights.WeightsError: nothing there, too much, or files that do not fit each other; nothing is loaded then.
        """
        config, state = weights.load(source, revision, token, progress, limits)
        detector = cls(config)
        detector.load_state_dict(state)
        if limits is not None:
            _try(detector, str(source))
        return detector

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors, in `dtype` if given. See `litedetr.weights`."""
        weights.write(self.config, self.state_dict(), folder, dtype)

    def push_to_hub(self, repo: str, private: bool | None = None, token: str | bool | None = None) -> str:
        """Upload config, weights and a model card to "owner/name" on the Hub; its page's address. See `litedetr.weights.hub`."""
        from litedetr.weights import hub  # only who asks the Hub waits for its library to be imported

        return hub.push(self, repo, private, token)

    def optimize(self, dtype: str | torch.dtype = "auto") -> fast.FastDetector:
        """A new detector for inference alone, faster on CPUs; this one stays as it is and may be dropped.

        The new one shares nothing with this one and is for prediction: `predict`, `predict_batch`, traces, and `forward` without
        training's arguments. Training, saving or moving it raises `RuntimeError`.

        Args:
            dtype: "float32": logits agree with this detector's within 1e-4, up to the order of equally good queries.
                "bfloat16": faster on CPUs that multiply it natively; the embedded model's scores on example photos agree within
                0.06, and a trace's rebuild error is about 0.02 instead of below 1e-5. "auto": bfloat16 where the CPU has it and
                this model is faster with it, measured now on an empty picture; else, and on a GPU, float32. Or the `torch.dtype`.

        Raises:
            ValueError: another dtype.
        """
        return fast.optimize(self, dtype)


@torch.inference_mode()
def _try(detector: Network, name: str) -> None:
    """Refuse a model that cannot see an empty picture of 128 pixels, or of its own size where that is smaller."""
    c = detector.config
    try:
        size = resized_size((128, 128), min(c.short_side, 128), min(c.long_side, 128), c.size_divisor)
        output = detector(torch.zeros(1, 3, *size))
    except (ValueError, RuntimeError, IndexError, TypeError, ZeroDivisionError) as error:
        raise WeightsError(f"expected a model that can be run in {name}, got one that cannot: {why(error)}. {ANOTHER}") from error
    if not (output.logits.isfinite().all() and output.boxes.isfinite().all()):
        raise WeightsError(f"expected a model that answers with finite numbers in {name}, got one that does not. {ANOTHER}")
