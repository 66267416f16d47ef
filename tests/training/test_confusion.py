"""The confusion matrix on hand-made boxes, and the pictures that an evaluation writes."""

import xml.etree.ElementTree as ElementTree

import numpy as np

from litedetr.cli import main
from litedetr.training.confusion import confusion, confusion_svg
from tests.training.conftest import tiny_detector


def entry(image, category, box, **more):
    return {"image_id": image, "category_id": category, "bbox": box, **more}


def test_what_is_taken_for_what():
    content = {
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
        "annotations": [
            entry(1, 3, [0, 0, 10, 10]), entry(1, 5, [50, 0, 10, 10]), entry(1, 5, [100, 0, 10, 10]),
            entry(2, 3, [0, 0, 60, 60], iscrowd=1),
        ],
    }  # fmt: skip
    results = [
        entry(1, 3, [0, 0, 10, 9], score=0.9),  # right
        entry(1, 5, [0, 0, 10, 10], score=0.8),  # that cat again: nothing is left there
        entry(1, 3, [50, 0, 10, 10], score=0.7),  # a dog taken for a cat
        entry(1, 5, [100, 0, 10, 10], score=0.2),  # below the threshold
        entry(2, 3, [10, 10, 5, 5], score=0.9),  # in a crowd
        entry(2, 5, [200, 200, 5, 5], score=0.9),  # nothing there
    ]
    expected = [[1, 0, 0], [1, 0, 1], [0, 2, 0]]
    assert confusion(content, results, [1, 2], 0.5).tolist() == expected
    assert confusion(content, [], [1, 2], 0.5)[:, -1].tolist() == [1, 2, 0]


def test_the_picture_shows_the_most_frequent_and_escapes_names():
    counts = np.diag(np.arange(40))
    tree = ElementTree.fromstring(confusion_svg(counts, [f"<class & {number}>" for number in range(39)]))
    words = ["".join(node.itertext()) for node in tree.iter() if node.tag.endswith("text")]
    assert words.count("<class & 38>") == 2  # a row and a column
    assert "<class & 3>" not in words
    assert "nothing" in words


def test_an_evaluation_writes_them(photo_folder, tmp_path, capsys):
    tiny_detector(short_side=96, long_side=96, class_names=("person", "train")).save_pretrained(tmp_path / "model")
    assert main(["eval", str(tmp_path / "model"), "--data", str(photo_folder), "--charts", str(tmp_path / "charts")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("person", "train"))]
    assert {row[0] for row in rows} == {"person", "train"}
    assert [word for word in rows[0] if word.isalpha()] == ["person", "AP", "AR"]
    for name in ("precision-recall.svg", "confusion.svg"):
        ElementTree.parse(tmp_path / "charts" / name)
