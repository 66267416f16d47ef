"""Weights from a Hub on loopback: fresh, cached, offline; both formats; and the sentence for each thing that goes wrong."""

import json

import pytest
from huggingface_hub import constants

from litedetr import Detector
from litedetr.weights import read_config
from tests.hub.conftest import CHUNK, point_at, refusal, same
from tests.hub.server import TOKEN, Hub

NAME = "owner/tiny"


def test_fresh_with_progress(hub, files, detector):
    hub.add(NAME, files)
    told = []
    loaded = Detector.from_pretrained(NAME, progress=lambda done, total: told.append((done, total)))
    assert loaded.config == detector.config
    assert same(loaded, detector)
    assert len(told) >= len(files["model.safetensors"]) // CHUNK
    assert told[-1] == (len(files["model.safetensors"]),) * 2
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    first, big = (next(i for i, line in enumerate(hub.asked) if line.endswith(name)) for name in ("config.json", ".safetensors"))
    assert first < big


def test_cached_and_offline(hub, files, detector, monkeypatch):
    sha = hub.add(NAME, files).branches["main"]
    Detector.from_pretrained(NAME)
    hub.asked.clear()
    assert same(Detector.from_pretrained(NAME), detector)
    assert not any(line.startswith("GET") for line in hub.asked)
    hub.broken = True  # the Hub is down, the cache is not
    assert same(Detector.from_pretrained(NAME), detector)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert same(Detector.from_pretrained(NAME), detector)
    assert same(Detector.from_pretrained(NAME, revision=sha), detector)
    assert read_config(NAME) == detector.config
    assert hub.asked == []
    assert refusal("owner/other") == (
        "owner/other is not in the cache, and HF_HUB_OFFLINE forbids asking the Hub: load it once while online, or unset "
        "HF_HUB_OFFLINE."
    )


def test_revisions(hub, files, detector):
    repo = hub.add(NAME, files)
    old = repo.branches["main"]
    repo.files["config.json"] = json.dumps(json.loads(files["config.json"]) | {"threshold": 0.77}).encode()
    repo.branches["v1"] = old
    repo.commit()
    assert Detector.from_pretrained(NAME).config.threshold == 0.77
    assert Detector.from_pretrained(NAME, revision="v1").config == detector.config
    assert Detector.from_pretrained(NAME, revision=old).config == detector.config
    assert refusal(NAME, revision="v2") == (
        "expected a branch, tag or commit of owner/tiny, got 'v2', which it does not have: leave the revision out for the newest."
    )


def test_nothing_there(hub, files):
    assert refusal("owner/none") == (
        'The Hub has no model owner/none, or none that you may read: check the spelling, or log in with "hf auth login" if it '
        "is private."
    )
    assert refusal("owner/two words") == (
        "expected a model's name on the Hub like \"owner/name\", got 'owner/two words': check the spelling."
    )
    hub.add(NAME, {"README.md": b"# nothing"})
    wanted = "that holds a litedetr model or a transformers model of the type deformable_detr."
    assert refusal(NAME) == f"expected config.json in owner/tiny, got a repository without it: choose one {wanted}"
    hub.add(NAME, {"config.json": files["config.json"]})
    assert refusal(NAME) == f"expected model.safetensors in owner/tiny, got a repository without it: choose one {wanted}"


def test_gated_and_private(hub, files, detector):
    hub.add(NAME, files, gated=True)
    assert refusal(NAME) == (
        f'owner/tiny is gated: accept its terms at {hub.url}/owner/tiny, log in with "hf auth login", and load it again.'
    )
    assert same(Detector.from_pretrained(NAME, token=TOKEN), detector)
    hub.add("owner/secret", files, private=True)
    assert refusal("owner/secret").startswith("The Hub has no model owner/secret, or none that you may read")
    assert same(Detector.from_pretrained("owner/secret", token=TOKEN), detector)


def test_the_hub_is_down(hub, tmp_path, monkeypatch):
    hub.broken = True
    assert refusal(NAME) == (
        f"The Hub at {hub.url} answered owner/tiny with the error 503, and it is not in the cache: try again in a while."
    )
    gone = Hub()
    gone.close()
    point_at(gone.url, tmp_path, monkeypatch)
    assert refusal(NAME) == (
        f"The Hub at {gone.url} cannot be reached, and owner/tiny is not in the cache: check the connection and try again."
    )


def test_the_server_dies_halfway(hub, files, detector):
    total = len(files["model.safetensors"])
    repo = hub.add(NAME, files, dies_after=5 * CHUNK)
    sentence = refusal(NAME)
    assert sentence.startswith(f"The download of model.safetensors from owner/tiny broke off after 20,480 of {total:,} bytes (")
    assert sentence.endswith("): check the connection and load it again.")
    repo.dies_after = None
    assert same(Detector.from_pretrained(NAME), detector)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "Error while deserializing header: incomplete metadata, file not fully covered"),
        (b"<html>not found</html>", "Error while deserializing header: header too large"),
        (b"", "Error while deserializing header: header too small"),
    ],
)
def test_what_came_is_no_safetensors(hub, files, content, reason):
    content = files["model.safetensors"][:-1000] if content is None else content
    hub.add(NAME, files | {"model.safetensors": content})
    assert refusal(NAME) == (
        f"expected tensors in model.safetensors of owner/tiny, and could not read them: {reason}. The file is missing, cut off "
        "or something else. Download or copy it again."
    )


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            '{"model_type": "bert"}',
            "expected a litedetr model or a transformers model of the type deformable_detr in owner/tiny, got the type 'bert'. "
            "Choose another model.",
        ),
        (
            "<html>",
            "expected JSON in config.json of owner/tiny, and could not read it: Expecting value: line 1 column 1 (char 0). "
            "Download or copy it again.",
        ),
        ("[1, 2]", "expected the settings of a model in config.json of owner/tiny, got [1, 2]. Choose another model."),
        (
            '{"architectures": ["X"]}',
            "expected the config of a litedetr model in owner/tiny: expected a litedetr config, got the unknown fields "
            "architectures: was it written by a newer version?. Choose another model.",
        ),
    ],
)
def test_another_kind_is_seen_before_its_weights_are_fetched(hub, files, config, sentence):
    hub.add(NAME, files | {"config.json": config.encode()})
    assert refusal(NAME) == sentence
    assert not any("safetensors" in line for line in hub.asked)


def test_weights_of_another_model(hub, files):
    config = json.loads(files["config.json"]) | {"width": 64}
    hub.add(NAME, files | {"config.json": json.dumps(config).encode()})
    assert refusal(NAME).startswith("expected weights that fit the model exactly, got ")
