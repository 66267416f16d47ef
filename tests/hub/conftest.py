import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants, file_download

from litedetr import Detector
from litedetr.weights import WeightsError
from tests.hub.server import Hub
from tests.small_models import small

CHUNK = 4096
"""Bytes between two reports of a download's progress."""


@pytest.fixture(scope="session")
def hub_server() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def hub(hub_server, tmp_path, monkeypatch) -> Hub:
    """An empty Hub that huggingface_hub takes for the real one, with an empty cache."""
    hub_server.repos.clear()
    hub_server.asked.clear()
    hub_server.broken = False
    point_at(hub_server.url, tmp_path / "cache", monkeypatch)
    return hub_server


def point_at(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT, HF_HUB_CACHE and HF_TOKEN would do in a new process."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    at_once = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    monkeypatch.setattr(file_download, "time", at_once)  # no waiting between attempts, and nobody else's clock is touched


@pytest.fixture(scope="session")
def detector():
    return small("lite-dino-mobilenet", class_names=("cat", "dog"), num_classes=2)


@pytest.fixture(scope="session")
def files(detector, tmp_path_factory) -> dict[str, bytes]:
    """The files of a tiny model in this project's format."""
    folder = tmp_path_factory.mktemp("tiny")
    detector.save_pretrained(folder)
    return read(folder)


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(*arguments, **options) -> str:
    with pytest.raises(WeightsError) as error:
        Detector.from_pretrained(*arguments, **options)
    return str(error.value)


def same(one, other) -> bool:
    own, given = one.state_dict(), other.state_dict()
    return list(own) == list(given) and all(torch.equal(own[key], given[key]) for key in own)
