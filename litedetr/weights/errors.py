"""What is wrong with weights, said in sentences: what was expected, what came, what to do next."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

AGAIN = "Download or copy it again."
ANOTHER = "Choose another model."


class WeightsError(ValueError):
    """Weights that cannot be loaded; the message says what to do."""


class OtherTypeError(WeightsError):
    """A folder of `transformers` with a model that is no Deformable DETR.

    Attributes:
        model_type: as in its config.json.
        folder: where that is.
    """

    def __init__(self, message: str, model_type: str, folder: Path):
        super().__init__(message)
        self.model_type, self.folder = model_type, folder


def is_full(error: BaseException) -> bool:
    """Whether what failed is that the disk has no room, or that nobody may write more to it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


def check_state(expected: Mapping[str, Shaped], given: Mapping[str, Shaped]) -> None:
    """Compare keys and shapes.

    Raises:
        WeightsError: names the first missing, unexpected and misshaped keys, and how many there are.
    """
    missing = [key for key in expected if key not in given]
    unexpected = [key for key in given if key not in expected]
    misshaped = [
        f"{key} (expected {tuple(expected[key].shape)}, got {tuple(given[key].shape[:8])})"
        for key in expected
        if key in given and tuple(expected[key].shape) != tuple(given[key].shape)
    ]
    problems = [
        f"{len(keys)} {kind}: {', '.join(key[:160] for key in keys[:3])}{', …' if len(keys) > 3 else ''}"
        for kind, keys in (("missing", missing), ("unexpected", unexpected), ("misshaped", misshaped))
        if keys
    ]
    if problems:
        raise WeightsError(
            "expected weights that fit the model exactly, got " + "; ".join(problems)
            + ". Nothing was loaded: use the config.json that belongs to these weights."
        )  # fmt: skip


def short(value: object) -> str:
    """At most 60 letters of what came."""
    return repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}…"


def why(error: Exception) -> str:
    """What an error says, without the places of this machine's disk that it names."""
    if isinstance(error, OSError):
        return (error.strerror or "it is not there").lower()
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error)[:300]
