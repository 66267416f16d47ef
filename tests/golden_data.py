"""Golden data: outputs of the published implementations for random weights.

A small part lives in ``tests/golden``; the environment variable LITEDETR_GOLDEN may name a folder with the whole set. Every
kind of data is a folder with an ``index.json`` (case -> its configuration) and one safetensors file per case.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

COMMITTED = Path(__file__).parent / "golden"
FOLDER = Path(os.environ.get("LITEDETR_GOLDEN") or COMMITTED)


@cache
def index(kind: str) -> dict[str, dict[str, Any]]:
    """Configuration of every case of a kind whose tensors are there."""
    entries = json.loads((FOLDER / kind / "index.json").read_text())
    return {name: entry for name, entry in entries.items() if (FOLDER / kind / f"{name}.safetensors").exists()}


def cases(kind: str, *prefixes: str) -> list[str]:
    """Names of the cases of a kind that start with one of the prefixes (all of them without prefixes)."""
    return [name for name in index(kind) if not prefixes or name.startswith(prefixes)]


def load(kind: str, case: str) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """A case's configuration, arrays, and parameters (float32, "param." dropped)."""
    tensors = load_file(FOLDER / kind / f"{case}.safetensors")
    arrays = {
        key: value.float() if value.dtype == torch.float16 else value
        for key, value in tensors.items()
        if not key.startswith("param.")
    }
    parameters = {
        key.removeprefix("param."): value.float() if value.dtype == torch.float16 else value
        for key, value in tensors.items()
        if key.startswith("param.")
    }
    return index(kind)[case], arrays, parameters


def tolerance(reference_noise: float) -> float:
    """Ten times the reference's own rounding noise plus 1e-5."""
    return 10 * reference_noise + 1e-5


def assert_close(actual: Tensor, expected: Tensor, limit: float, what: str = "") -> None:
    """Largest absolute difference at most `limit`; infinities must stand in the same places."""
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    actual, expected = actual.detach().double(), expected.detach().double()
    finite = expected.isfinite()
    assert torch.equal(actual.isfinite(), finite), f"{what}: finite in other places"
    assert torch.equal(actual[~finite], expected[~finite]), f"{what}: other infinities"
    difference = float((actual[finite] - expected[finite]).abs().max()) if finite.any() else 0.0
    assert difference <= limit, f"{what}: differs by {difference:.3g}, allowed {limit:.3g}"
