"""The page as a Space: what is uploaded, to a Hub on loopback. That it starts from these files alone: test_privacy.py."""

import hashlib
import re
import subprocess
from pathlib import Path

import pytest
from huggingface_hub import SpaceCard

from app import deploy as module
from app.deploy import contents, deploy, main, readme, requirements
from litedetr.weights import WeightsError
from tests.hub.conftest import point_at
from tests.hub.server import TOKEN
from tests.hub.spaces import SpaceHub

ROOT = Path(__file__).resolve().parents[2]
NAME = "me/lite-detr-live"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = SpaceHub()
    point_at(hub.url, tmp_path / "cache", monkeypatch)
    yield hub
    hub.close()


def content(file: Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()


def test_the_whole_space_is_uploaded_and_brought_up_to_date(hub):
    assert deploy(NAME, token=TOKEN) == f"{hub.url}/spaces/{NAME}"
    request = hub.made[0]
    assert (request["type"], request["sdk"]) == ("space", "gradio")
    space = hub.repos[NAME].files
    expected = contents()
    assert set(space) == {*expected, ".gitattributes"}
    assert all(space[name] == content(file) for name, file in expected.items())
    weights = [content(file) for name, file in expected.items() if name.endswith(".safetensors")]
    assert hub.stored == {hashlib.sha256(one).hexdigest(): one for one in weights}  # by LFS
    assert len(weights) == 3
    assert hub.hardware == {}

    space |= {"app/old.py": b"", "assets/weights/old.bin": b"", "secrets-of-the-owner.txt": b"mine"}
    hub.repos[NAME].commit()
    deploy(NAME, "l4x1", token=TOKEN)
    assert set(space) == {*expected, ".gitattributes", "secrets-of-the-owner.txt"}
    assert space["requirements.txt"] == requirements("l4x1").encode()
    assert hub.hardware == {NAME: "l4x1"}


def test_the_dry_run_prints_exactly_what_is_uploaded_and_uploads_nothing(hub, capsys):
    assert main([NAME, "--dry-run"]) == 0
    out = capsys.readouterr().out
    listed = {name: int(size.replace(",", "")) for size, name in re.findall(r"^ *([\d,]+)  (\S+)$", out, re.MULTILINE)}
    assert listed == {name: len(content(file)) for name, file in contents().items()}
    assert f"{sum(listed.values()):,}  bytes in {len(listed)} files" in out
    assert "sdk: gradio\n" in out
    assert requirements() in out
    assert hub.asked == []


def test_nothing_else_is_uploaded(tmp_path, monkeypatch):
    names = set(contents())
    assert not [name for name in names if re.search(r"(^|/)[._]|\.py[cod]$|^(tests|runs|bench)/|env", name.replace("__", ""))]
    assert {"app.py", "README.md", "requirements.txt", "packages.txt", "LICENSE", "app/ui.py", "ext/attention.cpp"} <= names
    assert {"assets/weights/model.safetensors", "assets/weights/config.json", "assets/examples/cat.jpg"} <= names
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    needed = {name for name in tracked if name.startswith(("app/", "litedetr/", "ext/", "assets/"))}
    needed -= {"litedetr/ext", "litedetr/assets"}  # links
    assert needed <= names, "a kind of file that the page needs is left out"
    for folder in module.FOLDERS:
        (tmp_path / folder / "__pycache__").mkdir(parents=True)
        for name in (".env", "token", "__pycache__/a.py", "notes.txt", "checkpoint.pt", "here.py"):
            (tmp_path / folder / name).write_text("x")
    for name in (*module.FILES, "README.md", "requirements.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(module, "ROOT", tmp_path)
    mine = {*module.FILES, "README.md", "requirements.txt"}
    assert set(contents()) == {*mine, "app/here.py", "litedetr/here.py"}


def test_packages_for_each_hardware():
    pins = (ROOT / "requirements.txt").read_text().split()
    torch = next(line for line in pins if line.startswith("torch=="))
    gradio = next(line for line in pins if line.startswith("gradio=="))
    free, gpu = requirements("cpu-basic").splitlines(), requirements("t4-small").splitlines()
    assert set(gpu) == {*pins} - {gradio}
    assert set(free) == {*gpu} - {torch} | {f"{torch}+cpu", f"--extra-index-url {module.CPU_WHEELS}"}
    assert requirements("zero-a10g").splitlines() == gpu
    for hardware in ("cpu-basic", "l4x1", "zero-a10g"):
        card = SpaceCard(readme(hardware))
        assert card.data.sdk_version == gradio.removeprefix("gradio==")
        assert card.data.suggested_hardware == hardware
        assert (card.data.sdk, card.data.app_file, card.data.license) == ("gradio", "app.py", "apache-2.0")
        assert str(card.data.python_version) == ("3.12" if hardware == "zero-a10g" else "3.11")
        assert len(card.data.short_description) <= 60
        assert "SenseTime/deformable-detr" in card.data.models
        assert card.text.strip() == SpaceCard((ROOT / "README.md").read_text(encoding="utf-8")).text.strip()


def test_a_space_that_starts_with_another_model(hub):
    deploy(NAME, token=TOKEN, model="lite-dino-r50-h3l1-2x3")
    assert hub.variables == {NAME: {"LITEDETR_MODEL": "lite-dino-r50-h3l1-2x3"}}
    card = SpaceCard(hub.repos[NAME].files["README.md"].decode())
    assert (card.data.startup_duration_timeout, card.data.get("preload_from_hub")) == ("1h", None)
    for model, repo in (("me/mine", "me/mine"), ("deformable-detr-r50", "SenseTime/deformable-detr")):
        card = SpaceCard(readme(model=model))
        assert card.data.preload_from_hub == [f"{repo} config.json,model.safetensors"]
    assert main([NAME, "--dry-run", "--model", "lite-dino-r60"]) == 1


def test_what_the_hub_does_not_take(hub, capsys, tmp_path, monkeypatch):
    assert main(["no-owner", "--dry-run"]) == 1
    assert capsys.readouterr().err == "expected a Space's name like \"owner/name\", got 'no-owner': check the spelling.\n"
    for name, token in ((NAME, "hf_wrong"), ("somebody-else/space", TOKEN)):
        with pytest.raises(WeightsError, match=f"The Hub does not let you write to {name}: log in"):
            deploy(name, token=token)
    with pytest.raises(WeightsError, match=f"^{NAME} is uploaded, but it does not get the hardware too-dear. .*402 Payment"):
        deploy(NAME, "too-dear", token=TOKEN)
    gone = SpaceHub()
    gone.close()
    point_at(gone.url, tmp_path, monkeypatch)
    with pytest.raises(WeightsError, match=f"The Hub at {gone.url} cannot be reached, so {NAME} was not uploaded"):
        deploy(NAME, token=TOKEN)
