"""Weights: config.json and model.safetensors, embedded, local or on the Hub -> (config, state).

`litedetr.Detector.from_pretrained` builds the detector of them.
"""

from litedetr.weights.errors import WeightsError, check_state
from litedetr.weights.folder import Stored, headers, read, understand, write
from litedetr.weights.limits import Limits, Progress
from litedetr.weights.source import convert, find, load, read_config
from litedetr.weights.variants import EMBEDDED, VARIANTS

__all__ = [
    "EMBEDDED", "VARIANTS", "Limits", "Progress", "Stored", "WeightsError", "check_state", "convert", "find", "headers", "load",
    "read", "read_config", "understand", "write",
]  # fmt: skip
