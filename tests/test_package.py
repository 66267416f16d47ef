"""What `pip install` gives, in an environment of its own: the wheel is complete, and exported models need no PyTorch."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import litedetr
from litedetr import Detector
from litedetr.export import export
from tests.small_models import small

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_PYTORCH = ("onnxruntime", "flatbuffers", "protobuf", "packaging", "numpy", "opencv-python-headless", "pillow")


def run(*command: str | Path, folder: Path, **variables: str) -> str:
    """What the command says; offline, and without this clone on Python's path."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, cwd=folder, env=kept | {"HF_HUB_OFFLINE": "1", **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source, out = tmp_path_factory.mktemp("source") / "clone", tmp_path_factory.mktemp("wheel")
    for folder in ("litedetr", "ext", "assets", "app"):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE", "app.py"):
        shutil.copy(ROOT / file, source)
    build = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", out, source)
    run(*build, folder=out)
    return next(out.iterdir())


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A fresh environment with the wheel; what it depends on is lent by the running one, so that nothing is downloaded."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, folder=folder)
    packages = next((folder / "lib").glob("python3*")) / "site-packages"
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_the_wheel_is_complete_and_nothing_more(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name == f"litedetr-{litedetr.__version__}-py3-none-any.whl"
    assert {name.split("/")[0] for name in names} == {"litedetr", f"litedetr-{litedetr.__version__}.dist-info"}
    assert {"litedetr/assets/weights/config.json", "litedetr/assets/weights/model.safetensors"} <= set(names)
    assert {f"litedetr/ext/{file.name}" for file in (ROOT / "ext").iterdir()} <= set(names)
    modules = {file.relative_to(ROOT).as_posix() for file in (ROOT / "litedetr").rglob("*.py")}
    assert modules <= set(names)


def test_it_predicts_offline_from_elsewhere(environment, tmp_path):
    shutil.copy(ROOT / "assets" / "examples" / "cat.jpg", tmp_path)
    command = environment / "bin" / "litedetr"
    assert "detect" in run(command, folder=tmp_path)
    found = json.loads(run(command, "detect", "cat.jpg", folder=tmp_path))
    expected = Detector.from_pretrained("embedded").predict(tmp_path / "cat.jpg")
    assert [detection["name"] for detection in found["detections"]] == expected.names == ["cat"]
    places = "import litedetr.ops.library as l, litedetr.weights as w; print(l.source_folder()); print(w.EMBEDDED)"
    for line in run(environment / "bin" / "python", "-c", places, folder=tmp_path).splitlines():
        assert Path(line).is_relative_to(environment.resolve()), "of the installed package, not of the clone"


def test_exported_models_need_no_pytorch(wheel, tmp_path):
    detector = small("lite-dino-mobilenet", schedule="H3L1-(2+1)x1", decoder_layers=1)
    export(detector, tmp_path / "model.onnx", size=(96, 96))
    packages = tmp_path / "packages"
    zipfile.ZipFile(wheel).extractall(packages)
    for name in WITHOUT_PYTORCH:
        for file in {path.parts[0] for path in metadata.files(name) if path.parts[0] not in ("..", "__pycache__")}:
            if not (packages / file).exists():
                (packages / file).symlink_to(metadata.distribution(name).locate_file(file))
    code = """
import importlib.util, json, sys
from litedetr.runtime import Exported
found = Exported("model.onnx").predict(sys.argv[1], 0.0)
assert importlib.util.find_spec("torch") is None
print(json.dumps(found.to_dict()))
"""
    photo = ROOT / "assets" / "examples" / "cat.jpg"
    found = json.loads(run(sys.executable, "-S", "-c", code, photo, folder=tmp_path, PYTHONPATH=str(packages)))
    assert (found["width"], found["height"]) == (451, 300)
    scores = [detection["score"] for detection in found["detections"]]
    assert len(scores) == min(detector.config.top_k, 12 * 80)
    assert np.all(np.diff(scores) <= 0)
