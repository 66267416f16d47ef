"""Lite DETR: an efficient detection transformer that can be watched."""

from litedetr.config import DetectorConfig
from litedetr.detections import Detections
from litedetr.detector import Detector
from litedetr.guests.accelerate import accelerate
from litedetr.guests.watch import watch
from litedetr.schedule import EncoderSchedule
from litedetr.trace import AttentionStep, Trace

__all__ = ["AttentionStep", "Detections", "Detector", "DetectorConfig", "EncoderSchedule", "Trace", "accelerate", "watch"]
__version__ = "0.1.0"
