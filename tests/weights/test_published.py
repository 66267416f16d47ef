"""The authors' weights, one word away: names, addresses, the cache, what is remembered and what is refused."""

import argparse
import hashlib
import json
import multiprocessing
from dataclasses import replace

import pytest
import torch
from PIL import Image

from litedetr import Detector
from litedetr.cli import main
from litedetr.config import preset, presets
from litedetr.cost import gmacs, paper, parameters
from litedetr.weights import WeightsError, verify
from litedetr.weights.conversion.infer import _SCHEDULE_IN_NAME
from litedetr.weights.published import catalogue, lookup, write_catalogue
from tests.weights.conftest import NAME, files_in
from tests.weights.test_conversion import LISTS, full_size


def refusal(source=NAME) -> str:
    with pytest.raises(WeightsError) as error:
        Detector.from_pretrained(source)
    return str(error.value)


def test_the_catalogue_agrees_with_the_presets(tmp_path):
    for name, entry in catalogue().items():
        assert entry.preset in presets()
        assert (entry.url is None) != (entry.repo is None)
        assert entry.url is None or entry.url.startswith("https://")
        config = preset(entry.preset)
        assert entry.schedule == (None if config.encoder_schedule.is_full else config.schedule), name
        assert entry.heads == config.heads
        if found := _SCHEDULE_IN_NAME.search(entry.file):
            assert int(found[1]) == config.encoder_schedule.high
        assert 39 < entry.ap < 60
        assert entry.gmacs == round(gmacs(config, paper.SIZE).total, 1)
        assert entry.megabytes == round(4 * parameters(config) / 1e6)
        assert entry.licence in ("Apache-2.0", "MIT")
        assert entry.checked == (entry.sha256 is not None) or entry.repo
    write_catalogue(catalogue().values(), tmp_path / "again.json")
    assert [entry["name"] for entry in json.loads((tmp_path / "again.json").read_text())] == list(catalogue())


def test_one_word(host, path, checkpoint, tmp_path):
    host.add(path, leads_to="/there")
    host.add("/there", checkpoint)
    told = []
    detector = Detector.from_pretrained(NAME, progress=lambda done, total: told.append((done, total)))
    assert detector.config.schedule == "H3L1-(2+1)x3"
    assert told[-1] == (len(checkpoint), len(checkpoint))
    folder = lookup(NAME).folder
    assert files_in(folder) == {"config.json", "model.safetensors", "README.md", "origin.json"}
    card = (folder / "README.md").read_text()
    assert f"Converted from `{catalogue()[NAME].url}`" in card
    assert "| AP on COCO val2017, as published | 50.4 |" in card
    host.paths.clear()  # the second time nobody is asked
    again = Detector.from_pretrained(NAME)
    assert torch.equal(again.neck.level_embed, detector.neck.level_embed)


def test_on_the_command_line(host, path, checkpoint, tmp_path, photo, capsys):
    host.add(path, checkpoint)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    assert main(["convert", NAME, str(tmp_path / "out")]) == 0
    assert "encoder H3L1-(2+1)x3, 91 classes" in capsys.readouterr().out
    assert files_in(tmp_path / "out") == {"config.json", "model.safetensors", "README.md"}
    folder = lookup(NAME).folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"short_side": 96, "long_side": 128}))
    assert main(["detect", str(tmp_path / "photo.png"), "--model", NAME, "--threshold", "0.9"]) == 0
    assert json.loads(capsys.readouterr().out)["width"] == photo.shape[1]
    address = catalogue()[NAME].url.replace("50.4", "another")
    host.add(path.replace("50.4", "another"), checkpoint)
    assert main(["convert", address, str(tmp_path / "other"), "--heads", "4"]) == 0
    both = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "other")]
    assert both[0] == both[1]
    assert f"Converted from `{address}`" in (tmp_path / "other" / "README.md").read_text()


def test_a_changed_file_is_refused_by_name(host, path, checkpoint, monkeypatch):
    host.add(path, checkpoint)
    Detector.from_pretrained(NAME)
    folder = lookup(NAME).folder
    (folder / "model.safetensors").unlink()
    host.add(path, checkpoint + b" ")
    message = refusal()
    assert message.startswith(f"expected r50_s3ex3_50.4.pth of {NAME} with the SHA-256 ")
    assert message.endswith(f"was changed and was not loaded. If its authors say so, delete {folder / 'origin.json'}.")
    monkeypatch.setitem(catalogue(), NAME, replace(catalogue()[NAME], sha256="0" * 64))
    assert "with the SHA-256 " + "0" * 64 + " (as published), got " in refusal()
    assert files_in(folder) == {"config.json", "README.md", "origin.json"}


def test_what_is_no_model(host, path):
    host.add(path, b"nothing of the kind")
    assert refusal().startswith("expected a PyTorch checkpoint in r50_s3ex3_50.4.pth, got something else or a broken file: ")
    assert refusal("https://example.org/none.pth").startswith(f"There is no file at {host.url}/example.org/none.pth (error 404)")
    assert refusal("lite-dino-swin-t-h3l1-2x3").endswith(
        "got 'lite-dino-swin-t-h3l1-2x3': nobody published any; Detector.from_preset gives it random ones."
    )


def _load(name: str) -> str:
    return Detector.from_pretrained(name).config.schedule


def test_two_processes_download_once(host, checkpoint):
    host.add("/example.org/r50_s3ex3.pth", checkpoint)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_load, ["https://example.org/r50_s3ex3.pth"] * 2) == ["H3L1-(2+1)x3"] * 2
    assert len(host.asked) == 1


@pytest.mark.parametrize("listed", [name for name in LISTS if name == "lite_dino_r50_s3ex3_kda"])
def test_the_published_file_in_full_size(host, path, tmp_path, monkeypatch, listed):
    """Names, shapes and bytes of the authors' file, cut off at half, behind a redirect."""
    monkeypatch.setitem(catalogue(), NAME, replace(catalogue()[NAME], heads=8))
    state, args, _ = full_size(listed)
    torch.save({"model": state, "args": argparse.Namespace(**args), "epoch": 35}, tmp_path / "full.pth")
    content = (tmp_path / "full.pth").read_bytes()
    host.add(path, leads_to="/there")
    host.add("/there", content, dies_after=[len(content) // 2])
    detector = Detector.from_pretrained(NAME)
    assert detector.config == preset(NAME)
    assert torch.equal(detector.neck.level_embed.detach(), state["transformer.level_embed"])
    assert host.asked[-1] == ("/there", f"bytes={len(content) // 2}-")


def test_verify_fills_the_catalogue_in(host, path, checkpoint, tmp_path, photo, monkeypatch, capsys):
    others = {name: other for name, other in catalogue().items() if name in (NAME, "h-detr-r50")}
    monkeypatch.setattr(verify, "catalogue", lambda: others)
    host.add(path, checkpoint)
    Image.fromarray(photo[:64, :64]).save(tmp_path / "photo.png")
    lines = list(verify.verify_published(tmp_path / "photo.png", tmp_path / "published.json"))
    assert lines[2].startswith(f"| `{NAME}` | {len(checkpoint) / 1e6:.0f} | {hashlib.sha256(checkpoint).hexdigest()[:12]} | ")
    assert lines[3].startswith("| `h-detr-r50` |  |  |  | FAILED: There is no file at ")
    written = {known["name"]: known for known in json.loads((tmp_path / "published.json").read_text())}
    assert written[NAME]["bytes"] == len(checkpoint)
    assert written[NAME]["sha256"] == hashlib.sha256(checkpoint).hexdigest()
    assert (written[NAME]["checked"], written["h-detr-r50"]["checked"]) == (True, False)
    assert written[NAME]["ap"] == 50.4
    assert main(["verify"]) == 2
    assert "expected a model on the Hub or --published" in capsys.readouterr().err
