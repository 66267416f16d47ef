"""Noisy queries' places that a picture does not need."""

import torch
from torch import nn

from litedetr.training.denoising import DenoisingSettings, make_denoising
from litedetr.training.targets import Targets
from tests.training.conftest import tiny_detector


def content(filled: bool) -> tuple[torch.Tensor, nn.Embedding, torch.Tensor]:
    """Of one picture with three objects and one with a single one; their label's embeddings; which places are used."""
    torch.manual_seed(0)
    embed = nn.Embedding(6, 8)
    boxes = [torch.full((count, 4), 0.3) for count in (3, 1)]
    targets = Targets.from_lists([torch.tensor([0, 1, 2]), torch.tensor([4])], boxes)
    settings = DenoisingSettings(number=60, label_noise=0.0, filled=filled)
    made = make_denoising(targets, embed, 5, 10, settings, torch.Generator().manual_seed(0))
    places = torch.arange(made.queries.content.shape[1])
    return made.queries.content, embed, torch.stack((places >= 0, places % 3 == 0))


def test_they_are_zeros_or_the_label_of_no_class():
    for filled in (False, True):
        found, embed, used = content(filled)
        blank = embed.weight[-1] if filled else torch.zeros(8)
        assert torch.equal(found[1][~used[1]], blank.expand(int((~used[1]).sum()), 8))
        assert torch.equal(found[1][used[1]], embed.weight[4].expand(int(used[1].sum()), 8))
        assert torch.equal(found[0, :3], embed.weight[:3])


def test_the_label_of_no_class_learns():
    found, embed, _ = content(filled=True)
    found.sum().backward()
    assert embed.weight.grad[-1].abs().sum() > 0
    assert not embed.weight.grad[3].any(), "no object has this class"


def test_a_picture_of_fewer_tokens_than_queries_is_trained_on():
    detector = tiny_detector(queries=200)
    targets = Targets.from_lists([torch.tensor([0, 1])], [torch.full((2, 4), 0.3)])
    noisy = make_denoising(targets, detector.label_embed, detector.config.num_classes, detector.num_queries)
    output = detector(torch.zeros(1, 3, 64, 128), denoising=noisy.queries)
    assert output.logits.shape[1] == len(output.tokens[0]) < 200
    assert output.denoising[0].logits.shape[1] == noisy.queries.content.shape[1]
