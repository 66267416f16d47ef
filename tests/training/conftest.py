"""A tiny detector and a tiny set of photos: coloured rectangles on grey."""

import json

import cv2
import numpy as np
import pytest
import torch

from litedetr import Detector

COLOURS = {1: (220, 40, 40), 7: (40, 60, 220)}  # category id -> RGB


def tiny_detector(**changes) -> Detector:
    torch.manual_seed(0)
    values = {
        "width": 32, "heads": 4, "encoder_ffn": 32, "low_ffn": 32, "decoder_ffn": 32, "decoder_layers": 2, "queries": 12,
        "backbone": "resnet50", "backbone_width": 2, "num_classes": 2, "dense_head": True, **changes,
    }  # fmt: skip
    return Detector.from_preset("lite-dino-mobilenet", **values)


def write_set(folder, split: str, count: int, seed: int = 0) -> None:
    """`count` pictures with one or two rectangles each."""
    rng = np.random.default_rng(seed)
    (folder / split).mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        width, height = (64, 48) if number % 3 else (48, 64)
        picture = np.full((height, width, 3), 128, dtype=np.uint8)
        for category in rng.permutation(list(COLOURS))[: 1 + number % 2]:
            w, h = rng.integers(12, 30, size=2)
            x, y = rng.integers(0, width - w), rng.integers(0, height - h)
            picture[y : y + h, x : x + w] = COLOURS[int(category)]
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": int(category), "iscrowd": 0,
                "bbox": [int(x), int(y), int(w), int(h)], "area": int(w * h),
            })  # fmt: skip
        cv2.imwrite(str(folder / split / f"{number}.png"), picture[..., ::-1])
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
    categories = [{"id": 1, "name": "person"}, {"id": 7, "name": "train"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / f"{split}.json").write_text(json.dumps(content))


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_set(folder, "train", 10)
    write_set(folder, "val", 4, seed=1)
    return folder
