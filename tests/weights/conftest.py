import argparse
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from litedetr.weights.published import catalogue
from tests import golden_data as golden
from tests.weights.host import Host, serving

NAME = "lite-dino-r50-h3l1-2x3"


@pytest.fixture(scope="session")
def host_server() -> Iterator[Host]:
    yield from serving()


@pytest.fixture
def host(host_server, tmp_path, monkeypatch) -> Host:
    """An empty server that stands before every address, and an empty cache."""
    host_server.paths.clear()
    host_server.asked.clear()
    monkeypatch.setenv("LITEDETR_MIRROR", host_server.url)
    monkeypatch.setenv("LITEDETR_DOWNLOADS", str(tmp_path / "cache"))
    monkeypatch.setitem(catalogue(), NAME, replace(catalogue()[NAME], heads=4))  # as the small model has
    return host_server


@pytest.fixture(scope="session")
def checkpoint() -> bytes:
    """A small Lite-DINO as a .pth file, with its args."""
    entry, _, parameters = golden.load("model", "lite_dino_s3ex3_kda")
    saved = io.BytesIO()
    torch.save({"model": parameters, "args": argparse.Namespace(**entry["config"]), "epoch": 11}, saved)
    return saved.getvalue()


@pytest.fixture
def path() -> str:
    """Where the mirror is asked for `NAME`."""
    return "/" + catalogue()[NAME].url.removeprefix("https://")


def files_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}
