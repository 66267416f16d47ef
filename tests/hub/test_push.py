"""Weights to a Hub on loopback, and back."""

import pytest
from huggingface_hub import constants

from litedetr import Detector
from litedetr.cli import main
from litedetr.weights import WeightsError
from litedetr.weights import hub as hub_module
from tests.hub.conftest import point_at, same
from tests.hub.server import TOKEN, Hub

NAME = "me/tiny"


def test_a_detector_there_and_back(hub, detector):
    assert detector.push_to_hub(NAME, private=True, token=TOKEN) == f"{hub.url}/{NAME}"
    repo = hub.repos[NAME]
    assert repo.private
    assert set(repo.files) == {"README.md", "config.json", "model.safetensors"}
    card = repo.files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: litedetr\npipeline_tag: object-detection\n")
    assert 'Detector.from_pretrained("me/tiny")' in card
    assert "Classes (2): cat, dog." in card
    assert same(Detector.from_pretrained(NAME, token=TOKEN), detector)


def test_a_folder_from_the_command_line(hub, detector, tmp_path, monkeypatch, capsys):
    detector.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("# My card of OWNER/NAME")
    (tmp_path / "model" / "curve.svg").write_text("<svg/>")
    monkeypatch.setattr(hub_module, "HfApi", lambda token: real(token=TOKEN))
    assert main(["push", str(tmp_path / "model"), NAME]) == 0
    assert capsys.readouterr().out == f"{hub.url}/{NAME}\n"
    assert hub.repos[NAME].files["README.md"] == b"# My card of me/tiny", "it says its name there"
    assert hub.repos[NAME].files["curve.svg"] == b"<svg/>", "the picture that the card shows"
    assert not hub.repos[NAME].private
    assert main(["push", str(tmp_path / "model"), NAME]) == 0  # a second time: a new commit in the same place
    assert same(Detector.from_pretrained(NAME), detector)


real = hub_module.HfApi


def refusal(*arguments, **options) -> str:
    with pytest.raises(WeightsError) as error:
        hub_module.push(*arguments, **options)
    return str(error.value)


def test_what_the_hub_does_not_take(hub, detector, tmp_path, monkeypatch):
    for name, token in ((NAME, "hf_wrong"), ("somebody-else/tiny", TOKEN)):
        assert refusal(detector, name, token=token) == (
            f'The Hub does not let you write to {name}: log in with "hf auth login" and a token that may write, and choose a '
            "name under your own account."
        )
    assert refusal(detector, "me/two words", token=TOKEN) == (
        "expected a model's name on the Hub like \"owner/name\", got 'me/two words': check the spelling."
    )
    gone = Hub()
    gone.close()
    point_at(gone.url, tmp_path, monkeypatch)
    assert refusal(detector, NAME, token=TOKEN).startswith(
        f"The Hub at {gone.url} cannot be reached, so me/tiny was not uploaded ("
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal(detector, NAME, token=TOKEN) == (
        "Nothing was uploaded, because HF_HUB_OFFLINE forbids it: unset HF_HUB_OFFLINE."
    )


def test_only_what_loads_is_uploaded(hub, detector, tmp_path):
    detector.save_pretrained(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-1000])
    assert "model.safetensors" in refusal(tmp_path, NAME, token=TOKEN)
    (tmp_path / "config.json").write_text('{"model_type": "deformable_detr"}')
    assert refusal(tmp_path, NAME, token=TOKEN) == (
        f"expected a folder in litedetr's own format, got one of transformers in {tmp_path.name}: convert it first, with "
        f'"python -m litedetr convert {tmp_path} FOLDER"'
    )
    assert hub.repos == {}
    assert hub.asked == []
