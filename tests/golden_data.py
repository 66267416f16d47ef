"""Golden data: outputs of the published implementations for random weights.

A small part lives in ``tests/golden``; the environment variable LITEDETR_GOLDEN may name a folder with the whole set. Every
kind of data is a folder with an ``index.json`` (case -> its configuration) and one safetensors file per case.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from litedetr import Detector, DetectorConfig, EncoderSchedule
from litedetr.weights.conversion.reference import convert_state

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


def config_of(case: dict) -> DetectorConfig:
    c = case["config"]
    family = {"lite_dino": "dino"}.get(case["family"], case["family"])
    levels, layers = c["num_feature_levels"], c["enc_layers"]
    common = {
        "family": family,
        "backbone_width": case["resnet_width"],
        "width": c["hidden_dim"],
        "heads": c["nheads"],
        "levels": levels,
        "points": c["enc_n_points"],
        "encoder_ffn": c.get("dim_feedforward_enc", c["dim_feedforward"]),
        "decoder_ffn": c.get("dim_feedforward_dec", c["dim_feedforward"]),
        "decoder_layers": c["dec_layers"],
        "num_classes": c.get("num_classes", 91),
    }
    if family != "dino":
        return DetectorConfig(
            **common,
            schedule=str(EncoderSchedule.full(levels, layers)),
            key_aware=False,
            low_ffn=None,
            queries=c["num_queries"] if family == "deformable_detr" else c["num_queries_one2one"],
            one_to_many_queries=c.get("num_queries_one2many", 0),
            two_stage=c["two_stage"],
            box_refine=c["with_box_refine"],
            shared_heads=not c["with_box_refine"],
            learned_content=c.get("mixed_selection", False),
            temperature=10000.0,
            position_shift=-0.5,
        )
    lite = case["family"] == "lite_dino"
    schedule = EncoderSchedule.full(levels, layers)
    if lite:
        schedule = EncoderSchedule(c["enc_scale"], levels - c["enc_scale"], layers // c["num_expansion"], c["num_expansion"])
    return DetectorConfig(
        **common,
        schedule=str(schedule),
        key_aware=lite and c["key_aware"],
        same_loc=lite and c["same_loc"],
        proj_key=lite and c["proj_key"],
        low_ffn=c["hidden_dim"] if lite and c["small_expand"] else None,
        queries=c["num_queries"],
        shared_heads=c["dec_pred_class_embed_share"],
        learned_content=c["embed_init_tgt"],
        top_k=c["num_select"],
    )


def load_published(detector: Detector, state: Mapping[str, Tensor]) -> None:
    """Load a state dict with published names into a detector."""
    detector.load_state_dict(convert_state(state, detector.state_dict()))
