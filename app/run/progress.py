"""A detector's progress: the names of its stages as it enters them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from time import monotonic

from litedetr import Detector
from litedetr.guests.detector import GuestDetector

PULSE = 0.25
"""Seconds after which a stage that goes on is reported once more: who waited may have left."""


@contextmanager
def report_stages(
    detector: Detector | GuestDetector, report: Callable[[float, str], None], between: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Report each stage before it begins, by hooks that are taken off again: the share of stages that are done, and its name
    ("backbone", "B1 high", …, "decoder 1", …); a long one again and again, between its parts, where `between` is called, too.
    What `report` raises ends the detector's work."""
    stages = detector.stages
    mine = get_ident()  # others may have the same detector, in threads of their own
    now, told = (0.0, ""), 0.0

    def begun(share: float, name: str) -> None:
        nonlocal now, told
        now, told = (share, name), monotonic()
        report(share, name)

    def begin(share: float, name: str) -> Callable[..., None]:
        return lambda *_: begun(share, name) if get_ident() == mine else None

    def go_on(*_: object) -> None:
        if get_ident() == mine and now[1]:
            between()
            if monotonic() - told > PULSE:
                begun(*now)

    hooks = [module.register_forward_pre_hook(begin(index / len(stages), name)) for index, (name, module) in enumerate(stages)]
    parts = {part for _, module in stages for part in module.modules() if next(part.children(), None) is not None}
    hooks += [part.register_forward_pre_hook(go_on) for part in parts - {module for _, module in stages}]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
