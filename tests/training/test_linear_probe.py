"""A row for a class that a start has no name for, from its own features."""

import logging

import torch

from litedetr.families.heads import ClassHead
from litedetr.training.data import PhotoSet
from litedetr.training.linear_probe import NO, YES, _row, linear_probe
from litedetr.training.start import from_trained
from tests.training.conftest import tiny_detector


def test_the_row_is_that_of_weighted_least_squares():
    torch.manual_seed(0)
    x = torch.cat((torch.randn(40, 3, dtype=torch.float64), torch.ones(40, 1, dtype=torch.float64)), 1)
    own = x[:5] + torch.tensor([3.0, 0, 0, 0])
    rest = x[5:]
    row = _row(own.T @ own, own.T @ own + rest.T @ rest).double()
    assert (own @ row).min() > (rest @ row).mean() + 1
    weight = torch.cat((torch.ones(5), torch.full((35,), 10 * 5 / 35))).sqrt().double()[:, None]
    wanted = torch.cat((torch.full((5,), YES), torch.full((35,), NO))).double()[:, None]
    free = torch.linalg.lstsq(weight * torch.cat((own, rest)), weight * wanted).solution[:, 0]
    torch.testing.assert_close(row, free, rtol=0.1, atol=0.1)  # but for the ridge
    assert _row(torch.zeros(4, 4), rest.T @ rest) is None


def test_every_head_of_a_start_gets_one(photo_folder, caplog):
    caplog.set_level(logging.INFO)
    detector = tiny_detector(dense_head=False, short_side=96, long_side=96).eval()
    photos = PhotoSet.open(photo_folder)
    for photo in photos.photos:  # one object in the middle, as large as the boxes that all tokens start from
        photo.boxes[:], photo.labels[:] = (0, 0, 64, 48), 1
    found = linear_probe(detector, photos, [0, 1])
    heads = {name for name, module in detector.named_modules() if isinstance(module, ClassHead)}
    assert set(found) == heads == {"heads.classes.0", "selection.class_head"}
    assert all(rows[0] is None for rows in found.values())  # nothing is a person
    assert caplog.messages[-2] == "person: begins at random: no box of the start lies on its objects"
    assert not any(module._forward_pre_hooks for module in detector.modules())


def test_a_start_that_has_no_name_for_a_class_gets_its_row(photo_folder, tmp_path, monkeypatch):
    trained = tiny_detector(dense_head=False, num_classes=2, class_names=("train", "dog"), category_ids=(7, 18))
    trained.save_pretrained(tmp_path)
    row = torch.arange(33.0)
    probe = {"heads.classes.0": [row], "selection.class_head": [None]}
    monkeypatch.setattr("litedetr.training.start.likenesses", lambda *_: [[]])
    monkeypatch.setattr("litedetr.training.start.linear_probe", lambda *_: probe)
    detector = from_trained(str(tmp_path), PhotoSet.open(photo_folder))
    assert torch.equal(detector.heads.classes[0].weight[0], row[:-1])
    assert detector.heads.classes[0].bias[0] == 32
    assert torch.equal(detector.heads.classes[0].weight[1], trained.heads.classes[0].weight[0]), "train is known"
