"""Lite DETR: an efficient detection transformer that can be watched.

What needs PyTorch is imported when it is first asked for, so that `litedetr.runtime` runs exported models where there is none.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from litedetr.config import DetectorConfig
from litedetr.detections import Detections
from litedetr.processors import wait_passively
from litedetr.schedule import EncoderSchedule

if TYPE_CHECKING:
    from litedetr.detector import Detector
    from litedetr.guests.accelerate import accelerate
    from litedetr.guests.watch import watch
    from litedetr.trace import AttentionStep, Trace
    from litedetr.training.arguments import train

__all__ = [
    "AttentionStep", "Detections", "Detector", "DetectorConfig", "EncoderSchedule", "Trace", "accelerate", "train", "watch",
]  # fmt: skip
__version__ = "0.2.0"

wait_passively()  # a good guest on a shared machine; read when PyTorch is imported

_NEED_PYTORCH = {
    "Detector": "litedetr.detector",
    "AttentionStep": "litedetr.trace",
    "Trace": "litedetr.trace",
    "accelerate": "litedetr.guests.accelerate",
    "watch": "litedetr.guests.watch",
    "train": "litedetr.training.arguments",
}


def __getattr__(name: str) -> Any:
    if name not in _NEED_PYTORCH:
        raise AttributeError(f"module 'litedetr' has no attribute {name!r}")
    return getattr(import_module(_NEED_PYTORCH[name]), name)
