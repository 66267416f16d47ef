"""The examples of docs/building-blocks.md run as they stand."""

import re
from pathlib import Path

import pytest
import torch

DOCUMENT = Path(__file__).parent.parent / "docs" / "building-blocks.md"


@pytest.fixture(
    params=re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL), ids=["encoder", "kda"]
)
def names(request) -> dict:
    """What an example defines."""
    torch.manual_seed(0)
    defined: dict = {"__name__": "example"}
    exec(compile(request.param, str(DOCUMENT), "exec"), defined)
    return defined


def test_everything_learns(names):
    assert [key for key, parameter in names["model"].named_parameters() if parameter.grad is None] == []


def test_shapes_and_sense(names):
    if "depth" in names:
        assert names["depth"].shape == (2, 12, 16)
        return
    assert names["logits"].shape == (2, 20, 11)
    assert names["boxes"].shape == (2, 20, 4)
    model, maps = names["model"].eval(), names["maps"]
    padding = torch.zeros(2, 128, 128, dtype=torch.bool)
    padding[1, 64:] = True
    with torch.no_grad():
        alone, together = model([m[:1] for m in maps], padding[:1])[0], model(maps, padding)[0]
    assert torch.allclose(alone, together[:1], atol=1e-5), "a padded neighbour changes nothing"
