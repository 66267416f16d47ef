"""A new family is a file of its own and a line in the list: everything else finds it."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from litedetr import Detector, config
from litedetr.config import preset
from litedetr.cost import gmacs, published_rule
from litedetr.families import deformable_detr, dino, family_of
from litedetr.families.dino import QuerySelection
from tests.pictures import scene


def test_a_new_one(monkeypatch):
    """DINO whose tokens are ranked by their last class."""

    class LastClass(QuerySelection):
        pass

    family = replace(
        dino.FAMILY, title="Toy", token_scores=lambda logits: logits[..., -1], denoising=False,
        published=deformable_detr.FAMILY.published, selection=lambda c: LastClass(c.width, c.queries, c.num_classes),
    )  # fmt: skip
    file = ModuleType("litedetr.families.toy")
    file.FAMILY = family
    monkeypatch.setitem(sys.modules, file.__name__, file)
    monkeypatch.setitem(config.FAMILIES, "toy", ())
    made = preset("lite-dino-mobilenet", family="toy", width=32, queries=9, decoder_layers=1, short_side=128, long_side=128)
    detector = Detector(made)
    assert isinstance(detector.selection, LastClass)
    assert not any(name.startswith("label_embed") for name in detector.state_dict())
    assert len(detector.predict(scene(80, 60), 0.0, trace=True).trace.decoder_steps) == 1
    assert gmacs(made, (64, 64)) == gmacs(replace(made, family="dino"), (64, 64))
    full = replace(made, schedule="H4L0-(1+1)x3")
    assert published_rule(full) == deformable_detr.FAMILY.published.rule
    with pytest.raises(ValueError, match=r"expected anchor_cells .* got 3 in a toy one"):
        replace(made, anchor_cells=3)


def test_what_a_token_s_score_tells():
    logits = torch.tensor([[0.5, 2.0, 1.0]])
    told = {name: family_of(preset("lite-dino-mobilenet", family=name)) for name in config.FAMILIES}
    assert {name: float(family.token_scores(logits)) for name, family in told.items()} == {
        "dino": 2.0, "deformable_detr": 0.5, "h_detr": 0.5,
    }  # fmt: skip
    assert [name for name, family in told.items() if family.tokens_tell_classes] == ["dino"]
