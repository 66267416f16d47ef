"""Classes that a start does not know by name begin as what it calls their objects."""

import logging

import pytest
import torch

from litedetr.output import DetectorOutput
from litedetr.training.data import PhotoSet
from litedetr.training.likeness import mixtures
from litedetr.training.start import from_trained
from tests.training.conftest import tiny_detector

NAMES = ("cat", "red thing", "blue thing", "dog")


class Seer(torch.nn.Module):
    """A detector that sees the red and the blue rectangles of the tests' pictures where they are, and calls them so."""

    def __init__(self):
        super().__init__()
        detector = tiny_detector(num_classes=4, class_names=NAMES, category_ids=(1, 2, 3, 4), short_side=96, long_side=96)
        self.config, self.prepare = detector.config, detector.prepare

    def infer(self, pixels):
        c = self.config
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (c.pixel_mean, c.pixel_std))
        red, _, blue = pixels[0] * std + mean
        H, W = red.shape
        logits, boxes = torch.full((3, 4), -6.0), torch.tensor([[0.5, 0.5, 0.1, 0.1]]).repeat(3, 1)
        for query, (seen, label) in enumerate(((red - blue > 90, 1), (blue - red > 90, 2))):
            if seen.any():
                rows, columns = seen.nonzero(as_tuple=True)
                x, y = ((columns.min(), columns.max() + 1), (rows.min(), rows.max() + 1))
                boxes[query] = torch.tensor([sum(x) / 2 / W, sum(y) / 2 / H, (x[1] - x[0]) / W, (y[1] - y[0]) / H])
                logits[query, label], logits[query, 3] = 2.0, -0.5
        return DetectorOutput(logits[None], boxes[None])


def test_a_class_is_what_the_start_calls_its_objects(photo_folder, caplog):
    caplog.set_level(logging.INFO)
    photos = PhotoSet.open(photo_folder)  # person is red, train is blue
    shares = mixtures(Seer(), photos, [0, 1])
    assert shares.sum(1).tolist() == pytest.approx([1, 1])
    assert (shares[0, 1], shares[1, 2]) > (0.7, 0.7)
    assert shares[:, 0].max() < 0.01
    assert caplog.messages[0].startswith("person: begins as red thing ")
    blind = Seer()
    blind.infer = lambda pixels: DetectorOutput(torch.full((1, 3, 4), -6.0), torch.full((1, 3, 4), 0.5))
    assert not mixtures(blind, photos, [1]).any()
    assert caplog.messages[-1] == "train: the start sees nothing in its objects, so its heads begin at random"


def test_the_heads_are_mixed_so(photo_folder, tmp_path, monkeypatch):
    trained = tiny_detector(dense_head=False, num_classes=3, class_names=("cat", "train", "dog"), category_ids=(17, 7, 18))
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn_like(parameter))
    trained.save_pretrained(tmp_path)
    monkeypatch.setattr("litedetr.training.start.mixtures", lambda detector, photos, strange: torch.tensor([[0.75, 0.0, 0.25]]))
    detector = from_trained(str(tmp_path), PhotoSet.open(photo_folder))
    for head in ("heads.classes.0", "selection.class_head"):
        old, new = trained.get_submodule(head), detector.get_submodule(head)
        assert torch.allclose(new.weight[0], 0.75 * old.weight[0] + 0.25 * old.weight[2], atol=1e-6), "person"
        assert torch.allclose(new.bias[0], 0.75 * old.bias[0] + 0.25 * old.bias[2], atol=1e-6)
        assert torch.equal(new.weight[1], old.weight[1]), "train is known"
