import pytest

from litedetr import DetectorConfig
from litedetr.training.classes import category_ids, same_names
from litedetr.training.data import PhotoSet
from tests.training.conftest import tiny_detector


def config(*names: str, ids: tuple[int, ...] = ()) -> DetectorConfig:
    return tiny_detector(num_classes=len(names), class_names=names, category_ids=ids).config


def test_names():
    assert same_names(["a", "b"], ["b", "c", "a"]) == {0: 2, 1: 0}
    assert same_names(["Traffic_Light", "cat"], ["dog", "traffic light"]) == {0: 1}
    assert same_names(["Cat", "cat"], ["cat", "CAT"]) == {1: 0, 0: 1}
    assert same_names(["cat"], ["CAT", "Cat"]) == {}  # which of them?


def test_classes_of_a_set(photo_folder):
    photos = PhotoSet.open(photo_folder, "val")
    assert category_ids(config("train", "cow", "person"), photos)[0] == [7, None, 1]
    assert category_ids(config("train"), photos) == (
        [7], ["val.json: 1 classes that the detector does not know are left out of the figures (person)"],
    )  # fmt: skip
    ids, notes = category_ids(config("사람", "기차", ids=(1, 7)), photos)
    assert ids == [1, 7]
    assert notes == ["val.json: the detector's classes under other names: 사람 is person, 기차 is train"]
    with pytest.raises(ValueError, match=r"expected a class of .* that the detector knows, got person, train, and it knows cow"):
        category_ids(config("cow", "cat", ids=(1, 2)), photos)


def test_without_names_classes_must_fit(photo_folder):
    photos = PhotoSet.open(photo_folder, "val")
    assert category_ids(tiny_detector().config, photos)[0] == [1, 7]
    assert category_ids(tiny_detector(num_classes=91).config, photos)[0][7] == 7
    with pytest.raises(ValueError, match="expected 3 categories"):
        category_ids(tiny_detector(num_classes=3).config, photos)
    with pytest.raises(ValueError, match="detector knows"):
        category_ids(tiny_detector(category_ids=(1, 2)).config, photos)
