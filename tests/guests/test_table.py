"""The README's table of what is known to work is what the models of these tests do."""

import re
from pathlib import Path

import torch

from litedetr import accelerate, watch
from litedetr.guests.calls import FUNCTIONS, MODULES, TRANSFORMERS, find
from litedetr.guests.detector import TITLES
from tests.guests import published, zoo
from tests.guests.conftest import EVERY, guest

README = Path(__file__).resolve().parents[2] / "README.md"
PUBLISHED = {
    "MSDeformAttn": "Deformable DETR, DINO, H-DETR: `MSDeformAttn`",
    "mmcv": "mmcv, detrex: `MultiScaleDeformableAttention`",
}


def line(kind: str) -> str:
    """What the model of a kind lets see, and whether it is sped up."""
    model = guest(kind)
    with watch(model.model) as trace, accelerate(model.model) as handle, torch.no_grad():
        model.model(**model.inputs)
    handle.undo()
    seen = " and ".join(sorted({step.name.split()[0] for step in trace.steps}, reverse=True))
    called = " or ".join(f"`{target.name}`" for target in find(model.model)[0].targets if target.name in {*FUNCTIONS, *MODULES})
    page = "yes" if kind in TITLES else "as a `Detector`" if kind == "deformable_detr" else ""
    name = PUBLISHED.get(kind, f"`{kind}`")
    return f"| {name} | {seen} | {called or '`MSDeformAttnFunction`'} | {page} |"


def table() -> str:
    head = [
        f"| model type (transformers {TRANSFORMERS}) | watched and accelerated | what it calls | in the page |",
        "| --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *map(line, EVERY)]) + "\n"


def test_the_readmes_table_says_what_works():
    assert set(EVERY) == {*zoo.KINDS, *published.KINDS}
    found = re.search(r"<!-- guests: .*? -->\n(.*?)<!-- /guests -->", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found[1] == table()
