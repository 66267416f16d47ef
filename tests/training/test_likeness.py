"""Classes that a start does not know by name begin as what it calls their objects."""

import logging

import torch

from litedetr.output import DetectorOutput
from litedetr.training.data import PhotoSet
from litedetr.training.likeness import likenesses
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
                logits[query, label], logits[query, 3] = 2.0, -2.5
        return DetectorOutput(logits[None], boxes[None])


def test_a_class_is_what_the_start_calls_its_objects(photo_folder, caplog):
    caplog.set_level(logging.INFO)
    photos = PhotoSet.open(photo_folder)  # person is red, train is blue
    assert likenesses(Seer(), photos, [0, 1]) == [[1], [2]]  # "dog" is said of both, and never for sure
    assert caplog.messages == ["person: begins as red thing", "train: begins as blue thing"]
    unsure = Seer()
    unsure.infer = lambda pixels: DetectorOutput(torch.full((1, 3, 4), -3.0), torch.full((1, 3, 4), 0.5))
    assert likenesses(unsure, photos, [1]) == [[]]


def test_everything_a_start_calls_such_objects_is_a_row(photo_folder, caplog):
    caplog.set_level(logging.INFO)
    photos = PhotoSet.open(photo_folder)
    for photo in photos.photos:
        photo.labels[:] = 0  # red or blue, all are persons
    (person,) = likenesses(Seer(), photos, [0])
    assert sorted(person) == [1, 2]
    assert caplog.messages[-1].startswith("person: begins as the best of ")


def start(folder, monkeypatch, rows: list[int], hold: bool = False, **changes):
    """A detector of person and train from one of cat, train and dog, to which a person is these rows; and that one."""
    names = {"num_classes": 3, "class_names": ("cat", "train", "dog"), "category_ids": (17, 7, 18)}
    trained = tiny_detector(dense_head=False, **names, **changes)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn_like(parameter))
    trained.save_pretrained(folder / "trained")
    monkeypatch.setattr("litedetr.training.start.likenesses", lambda detector, photos, strange: [rows])
    return from_trained(str(folder / "trained"), PhotoSet.open(folder), hold=hold), trained


HEADS = ("heads.classes.0", "selection.class_head")


def test_a_class_has_the_rows_of_all_that_it_is_called(photo_folder, monkeypatch):
    detector, trained = start(photo_folder, monkeypatch, [2, 0], class_rows=(2, 1, 1))
    assert detector.config.class_rows == (3, 1)  # a dog's row, a cat's two
    x = torch.randn(5, detector.config.width)
    for head in HEADS:
        old, new = trained.get_submodule(head), detector.get_submodule(head)
        assert torch.equal(new.weight, old.weight[[3, 0, 1, 2]])
        cat, train, dog = old(x).unbind(-1)
        torch.testing.assert_close(new(x), torch.stack((torch.maximum(cat, dog), train), -1))


def test_rows_that_the_start_knows_may_be_held(photo_folder, monkeypatch):
    detector, _ = start(photo_folder, monkeypatch, [], hold=True)  # it knows train, and sees nothing in persons
    x = torch.randn(5, detector.config.width)
    for head in map(detector.get_submodule, HEADS):
        head(x).sum().backward()
        assert head.weight.grad[0].all()
        assert not head.weight.grad[1].any()
        assert head.bias.grad.tolist() == [5, 0]
    detector, _ = start(photo_folder, monkeypatch, [2], hold=True)
    assert not any(detector.get_submodule(head).weight.requires_grad for head in HEADS)
