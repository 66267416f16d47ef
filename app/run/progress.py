"""A detector's progress: the names of its stages as it enters them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident

from litedetr import Detector
from litedetr.guests.detector import GuestDetector


@contextmanager
def report_stages(detector: Detector | GuestDetector, report: Callable[[float, str], None]) -> Iterator[None]:
    """Report each stage before it begins, by hooks that are taken off again: the share of stages that are done, and its name
    ("backbone", "B1 high", …, "decoder 1", …). What `report` raises ends the detector's work."""
    stages = detector.stages
    mine = get_ident()  # others may have the same detector, in threads of their own
    shares = [index / len(stages) for index in range(len(stages))]
    hooks = [
        module.register_forward_pre_hook(lambda *_, share=share, name=name: report(share, name) if get_ident() == mine else None)
        for share, (name, module) in zip(shares, stages, strict=True)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
