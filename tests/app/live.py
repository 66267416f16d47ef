"""One engine and one running page for all tests of the page, made when first asked for."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import gradio as gr
import torch

from app.engine.engine import Engine
from app.engine.store import RunStore
from app.ui import build, launch_options
from litedetr import Detector
from litedetr.weights import EMBEDDED

SIDE = 320
"""Longest side in the network: a run takes a fraction of a second."""


@cache
def model_folder() -> Path:
    """The embedded weights where there are some, else random ones from a seed; at a small input size."""
    folder = Path(tempfile.mkdtemp(prefix="litedetr-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if (EMBEDDED / "model.safetensors").is_file():
        shutil.copy(EMBEDDED / "model.safetensors", folder)
        config = json.loads((EMBEDDED / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | {"short_side": SIDE, "long_side": SIDE}), encoding="utf-8")
    else:
        torch.manual_seed(0)
        Detector.from_preset("lite-dino-mobilenet", short_side=SIDE, long_side=SIDE).save_pretrained(folder)
    return folder


@cache
def engine() -> Engine:
    return Engine(str(model_folder()), RunStore())


@cache
def page() -> gr.Blocks:
    """The page on loopback; the server ends with the tests."""
    blocks = build(engine())
    blocks.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **launch_options(engine()))
    atexit.register(blocks.close, verbose=False)
    return blocks


def address() -> str:
    """The page's address."""
    return page().local_url.rstrip("/")
