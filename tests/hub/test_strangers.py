"""A model whose name a visitor typed: what it may be, what is read of it, and what it costs before it is refused."""

import json
import os
import pickle
import re
import struct
import tracemalloc
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save, save_file

from litedetr import Detector
from litedetr.weights import find
from litedetr.weights.limits import Limits, folder_bytes, make_room
from tests.hub.conftest import read, refusal, same
from tests.weights.of_transformers import build

NAME = "owner/tiny"
LIMITS = Limits(file_bytes=40_000_000, gmacs=20, memory_bytes=1_000_000_000)


class Poison:
    """A pickle that makes a file where it is read."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[str, bytes]:
    """The files of a tiny transformers model."""
    folder = tmp_path_factory.mktemp("published")
    build(two_stage=False, box_refine=True).save_pretrained(folder)
    return read(folder)


def downloaded(hub) -> list[str]:
    return [line.rsplit("/")[-1] for line in hub.asked if line.startswith("GET")]


def test_what_fits_loads(hub, files, published, detector):
    hub.add(NAME, files)
    assert same(Detector.from_pretrained(NAME, limits=LIMITS), detector)
    hub.add("owner/published", published)
    assert Detector.from_pretrained("owner/published", limits=LIMITS).config.num_classes == 7


def test_a_large_file_is_refused_before_it_is_fetched(hub, files, tmp_path, detector):
    hub.add(NAME, files)
    small = Limits(file_bytes=300_000, advice=", or raise LITEDETR_LARGEST_MB")
    sentence = (
        r"^expected a model of at most 0 MB, got \d MB in owner/tiny: choose a smaller one, or raise LITEDETR_LARGEST_MB\.$"
    )
    assert re.match(sentence, refusal(NAME, limits=small))
    assert downloaded(hub) == ["config.json"]
    Detector.from_pretrained(NAME)  # a trusted one has no limits; then it lies in the cache
    hub.broken = True
    assert same(Detector.from_pretrained(NAME), detector)
    assert "expected a model of at most" in refusal(NAME, limits=small)
    detector.save_pretrained(tmp_path / "local")
    assert "expected a model of at most" in refusal(tmp_path / "local", limits=small)


def test_half_precision_counts_as_what_it_becomes(tmp_path, detector):
    detector.save_pretrained(tmp_path, torch.float16)
    size = (tmp_path / "model.safetensors").stat().st_size
    assert "expected a model of at most" in refusal(tmp_path, limits=Limits(file_bytes=int(1.2 * size)))
    Detector.from_pretrained(tmp_path, limits=Limits(file_bytes=2 * size))


ABSURD = {
    "width": 10**9,
    "heads": 0,
    "levels": 10**6,
    "encoder_ffn": -1,
    "decoder_layers": 10**7,
    "queries": 10**12,
    "num_classes": 10**9,
    "points": 2.5,
    "top_k": True,
    "backbone_width": "64",
    "schedule": "H3L1-(999+1)x999",
    "short_side": 10**6,
    "size_divisor": 0,
    "temperature": float("nan"),
    "threshold": float("inf"),
    "pixel_std": [0, 1, 1],
    "pixel_mean": None,
    "key_aware": "yes",
    "family": ["dino"],
    "backbone": "os.system",
    "class_names": ["\ud800", "y"],
    "category_ids": [1e300, 2],
    "nms_iou": "1",
}


@pytest.mark.parametrize("field", ABSURD)
def test_an_absurd_config_is_refused_before_memory_is_spent(hub, files, field):
    value = ABSURD[field]
    hub.add(NAME, files | {"config.json": json.dumps(json.loads(files["config.json"]) | {field: value}).encode()})
    tracemalloc.start()
    sentence = refusal(NAME, limits=LIMITS)
    spent = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sentence.startswith("expected the config of a litedetr model in owner/tiny: expected ")
    assert "." in sentence
    assert len(sentence) < 500
    assert field in sentence or field == "schedule"
    assert spent < 20_000_000
    assert downloaded(hub) == ["config.json"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"short_side": 8000, "long_side": 8000, "encoder_ffn": 30_000}, "largest tensor has at most"),
        ({"short_side": 3200, "long_side": 3200}, "at most 20 GMACs a photo, got "),
        ({"queries": 10_000}, "at most 3,000 queries, got 10,000"),
        ({"points": 64}, "at most 16 points, got 64"),
        ({"decoder_layers": 60}, "at most 24 decoder_layers, got 60"),
        ({"schedule": "H3L1-(99+1)x1"}, "at most 64 encoder steps, got 99"),
        (
            {"family": "deformable_detr", "two_stage": False, "learned_content": False, "queries": 3000, "num_classes": 50_000,
             "class_names": [], "category_ids": [], "short_side": 32, "long_side": 32},
            "class scores of all layers, got ",
        ),
        (
            {"family": "deformable_detr", "two_stage": False, "learned_content": False, "queries": 3000, "heads": 32},
            "needs at most 1,000 MB for a photo, got one that may need ",
        ),
        ({"width": 33, "heads": 3}, "expected a model that can be built in owner/tiny, got one that cannot"),
    ],
)  # fmt: skip
def test_what_is_absurd_only_together(hub, files, changes, words):
    hub.add(NAME, files | {"config.json": json.dumps(json.loads(files["config.json"]) | changes).encode()})
    assert words in refusal(NAME, limits=LIMITS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 200_000, "nested too deeply"),
        (b'{"width": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b"\xff\xfe\x00{", "expected JSON in config.json"),
        (b" " * 2_100_000 + b"{}", "expected a config.json of at most 2 MB in owner/tiny, got 2 MB: choose another model."),
    ],
    ids=["deep", "long number", "no text", "large"],
)
def test_broken_json(hub, files, content, words):
    hub.add(NAME, files | {"config.json": content})
    assert words in refusal(NAME, limits=LIMITS)
    assert words in refusal(NAME)


def lying(header: dict | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


LIES = {
    "shape": lying({"a": TENSOR | {"shape": [10**12]}}, bytes(8)),
    "end": lying({"a": TENSOR | {"data_offsets": [0, 10**15]}}, bytes(8)),
    "backwards": lying({"a": TENSOR | {"data_offsets": [8, 0]}}, bytes(8)),
    "overlap": lying({"a": TENSOR, "b": TENSOR}, bytes(8)),
    "overflow": lying({"a": TENSOR | {"shape": [2**63, 2**63]}}, bytes(8)),
    "negative": lying({"a": TENSOR | {"shape": [-2]}}, bytes(8)),
    "endless": lying({"a": TENSOR}, bytes(8), length=2**63),
    "long": lying({"a": TENSOR}, bytes(8), length=50_000_000),
    "dtype": lying({"a": TENSOR | {"dtype": "OBJECT"}}, bytes(8)),
    "json": lying(b"{" * 3000, bytes(8)),
    "text": lying(b"\xff" * 300, bytes(8)),
    "cut": lying({"a": TENSOR}, bytes(4)),
    "short": b"\x00" * 7,
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES)
def test_a_header_that_lies(hub, files, content):
    hub.add(NAME, files | {"model.safetensors": content})
    sentence = refusal(NAME, limits=LIMITS)
    assert sentence.startswith("expected tensors in model.safetensors of owner/tiny, and could not read them: ")
    assert len(sentence) < 500
    assert str(constants.HF_HUB_CACHE) not in sentence


def test_tensors_that_are_none_of_the_model(hub, files):
    many = {f"{'x' * 500}{number}": {"dtype": "F32", "shape": [0, 10**9], "data_offsets": [0, 0]} for number in range(2000)}
    hub.add(NAME, files | {"model.safetensors": lying(many)})
    sentence = refusal(NAME, limits=LIMITS)
    assert sentence.startswith("expected weights that fit the model exactly, got ")
    assert len(sentence) < 1500
    more = {f"{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(10_001)}
    hub.add(NAME, files | {"model.safetensors": lying(more)})
    assert refusal(NAME, limits=LIMITS) == "expected at most 10,000 tensors in owner/tiny, got 10,001. Choose another model."


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.tensor(float("nan")), "expected finite numbers in the weights of owner/tiny, got others in 'neck.level_embed'"),
        (torch.tensor(float("inf")), "expected finite numbers"),
        (torch.tensor(1, dtype=torch.int64), "of the kinds F64, F32, F16, BF16 in owner/tiny, got 'neck.level_embed' (I64)"),
        (torch.tensor(1j), "expected weights of the kinds"),
    ],
)  # fmt: skip
def test_numbers_that_are_none(hub, files, tmp_path, value, words):
    file = tmp_path / "model.safetensors"
    file.write_bytes(files["model.safetensors"])
    state = load_file(file)
    state["neck.level_embed"] = value.expand(state["neck.level_embed"].shape).clone()
    hub.add(NAME, files | {"model.safetensors": save(state)})
    assert words in refusal(NAME, limits=LIMITS)


def test_numbers_too_large_to_reckon_with(hub, files, detector):
    state = {key: 1e30 * value if key.startswith("encoder.") else value for key, value in detector.state_dict().items()}
    hub.add(NAME, files | {"model.safetensors": save(state)})
    assert refusal(NAME, limits=LIMITS) == (
        "expected a model that answers with finite numbers in owner/tiny, got one that does not. Choose another model."
    )


@pytest.mark.parametrize("trusted", [False, True])
def test_a_poisoned_pickle_runs_nothing(hub, files, published, tmp_path, trusted):
    mark = tmp_path / "run"
    poison = pickle.dumps(Poison(mark))
    limits = None if trusted else LIMITS
    hub.add(NAME, files | {"model.safetensors": poison})
    assert "and could not read them" in refusal(NAME, limits=limits)
    config = {"config.json": published["config.json"]}
    torch.save({"model": Poison(mark)}, tmp_path / "poison.bin")
    hub.add(NAME, config | {"pytorch_model.bin": (tmp_path / "poison.bin").read_bytes()})
    sentence = refusal(NAME, limits=limits)
    if trusted:
        assert "got a pickle that wants to run code, and it was refused" in sentence
    else:
        assert sentence == (
            "expected model.safetensors in owner/tiny, got a repository without it: choose one that holds a litedetr model or a "
            "transformers model of the type deformable_detr, as safetensors."
        )
        assert "pytorch_model.bin" not in " ".join(hub.asked)
    assert not mark.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder_attention_heads": 0},
        {"encoder_attention_heads": "eight"},
        {"id2label": [1, 2]},
        {"id2label": {"one": 1}},
        {"id2label": {str(index): index for index in range(7)}},
    ],
    ids=str,
)
def test_settings_of_transformers_that_fit_nothing(hub, published, changes):
    config = json.loads(published["config.json"]) | changes
    hub.add(NAME, published | {"config.json": json.dumps(config).encode()})
    sentence = refusal(NAME, limits=LIMITS)
    assert len(sentence) < 700
    assert sentence.startswith("expected ")


def test_names_and_shapes_that_make_a_large_model_of_nothing(hub, published, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(published["model.safetensors"])
    state = load_file(tmp_path / "model.safetensors")
    for name in [name for name in state if "encoder.layers.0" in name and ("fc1" in name or "fc2" in name)]:
        state[name] = torch.empty(8_000, 0)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    hub.add(NAME, published | {"model.safetensors": (tmp_path / "model.safetensors").read_bytes()})
    assert refusal(NAME, limits=LIMITS).startswith(
        "expected weights that fit the model exactly, got 7 misshaped: encoder.layers.0.ffn.linear1.weight (expected (8000, 32), "
    )


def test_the_disk_is_bounded(hub, files, tmp_path):
    size = len(files["model.safetensors"]) + len(files["config.json"])
    limits = Limits(file_bytes=2 * size, cache=tmp_path / "visitors", cache_bytes=int(2.5 * size))
    stranger = tmp_path / "visitors" / "models--left--incomplete" / "blobs"
    stranger.mkdir(parents=True)
    (stranger / "half.incomplete").write_bytes(bytes(size))
    os.utime(stranger.parent, (0, 0))
    for number, name in enumerate(("a/one", "b/two", "a/one", "c/three")):
        if name not in hub.repos:
            hub.add(name, files)
        Detector.from_pretrained(name, limits=limits)
        os.utime(tmp_path / "visitors" / f"models--{name.replace('/', '--')}", (number + 1, number + 1))
    there = {folder.name for folder in (tmp_path / "visitors").iterdir() if folder.name.startswith("models--")}
    assert there == {"models--a--one", "models--c--three"}  # b/two was not used for longest
    assert folder_bytes(tmp_path / "visitors") <= limits.cache_bytes
    assert not Path(constants.HF_HUB_CACHE).exists()  # the host's own cache is not touched
    hub.broken = True
    Detector.from_pretrained("a/one", limits=limits)


def test_a_hundred_small_models_are_bounded(hub, files, tmp_path):
    size = len(files["model.safetensors"]) + len(files["config.json"])
    limits = Limits(file_bytes=2 * size, cache=tmp_path / "visitors", cache_bytes=4 * size)
    for number in range(100):
        hub.add(f"owner/number{number}", files)
        find(f"owner/number{number}", limits=limits)
        assert folder_bytes(tmp_path / "visitors") <= limits.cache_bytes
    there = [folder for folder in (tmp_path / "visitors").iterdir() if folder.name.startswith("models--")]
    assert 1 <= len(there) <= 4
    assert tmp_path / "visitors" / "models--owner--number99" in there
    assert len(list((tmp_path / "visitors").rglob("*"))) < 100  # nor do locks and empty folders add up


def test_where_the_hub_leads_elsewhere(hub, files, detector):
    """As the real one does for large files; around in a circle, to this machine's files, or to nobody, there is a sentence."""
    hub.add(NAME, files, moved="/cdn")
    assert same(Detector.from_pretrained(NAME, limits=LIMITS), detector)
    for number, place in enumerate(("", "file:///etc", "ftp://127.0.0.1", "http://127.0.0.1:9", "gopher:", "//")):
        hub.add(f"owner/astray{number}", files, moved=place or f"/owner/astray{number}/resolve/main/config.json?")
        assert re.match(r"^(The download of|The Hub at) ", refusal(f"owner/astray{number}", limits=LIMITS)), place


def test_what_is_longer_than_it_said_is_stopped(hub, files):
    hub.add(NAME, files, longer=200 * 2**20)
    sentence = refusal(NAME, limits=LIMITS)
    assert re.match(r"^expected [\d,]+ bytes of config\.json from owner/tiny, as the Hub said, got more, and ", sentence)
    assert folder_bytes(Path(constants.HF_HUB_CACHE)) < 2**20


def test_one_model_with_many_revisions_is_bounded_too(tmp_path):
    own = tmp_path / "models--a--one"
    own.mkdir()
    (own / "old").write_bytes(bytes(600))
    assert make_room(tmp_path, 300, 1000, own.name, begins=True)
    assert not (own / "old").exists()
    (own / "new").write_bytes(bytes(400))
    assert make_room(tmp_path, 300, 1000, own.name, begins=False)
    assert (own / "new").exists()
    assert not make_room(tmp_path, 900, 1000, own.name, begins=False)
