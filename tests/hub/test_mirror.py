"""Published weights, converted and uploaded to a Hub on loopback."""

from litedetr import Detector
from litedetr.weights.mirror import mirror
from litedetr.weights.published import catalogue
from tests.hub.conftest import same
from tests.hub.server import TOKEN
from tests.weights.conftest import NAME, checkpoint, host, host_server, path  # noqa: F401  fixtures


def test_what_is_published_goes_to_an_account_of_ones_own(hub, host, path, checkpoint):  # noqa: F811
    host.add(path, checkpoint)
    assert list(mirror("me", [NAME], token=TOKEN)) == [f"{hub.url}/me/{NAME}"]
    repo = hub.repos[f"me/{NAME}"]
    assert set(repo.files) == {"README.md", "config.json", "model.safetensors"}
    card = repo.files["README.md"].decode()
    assert card.startswith("---\nlicense: apache-2.0\n")
    for said in (catalogue()[NAME].url, "as published | 50.4 |", "| SHA-256 of the published file | "):
        assert said in card
    assert same(Detector.from_pretrained(f"me/{NAME}"), Detector.from_pretrained(NAME))
