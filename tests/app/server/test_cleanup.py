from pathlib import Path

from gradio.utils import get_upload_folder
from gradio_client import Client, handle_file

from app.engine.engine import EXAMPLES
from app.engine.queue import Client as Visitor
from app.server.cleanup import trim_uploads
from app.server.uploads import owners
from tests.app import live


def stored(folder: Path, number: int, client: Visitor) -> str:
    path = folder / str(number) / "photo.jpg"
    path.parent.mkdir()
    path.write_bytes(bytes(100_000))
    owners.of[path.stat().st_ino] = client
    return str(path)


def test_the_oldest_uploads_go_first(tmp_path):
    names = [stored(tmp_path, number, Visitor("1.1.1.1", "one")) for number in range(4)]
    uploads = {*names, str(tmp_path / "gone.jpg")}
    for _ in range(2):
        trim_uploads(uploads, limit=250_000)
        assert uploads == set(names[2:])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]  # their folders went too


def test_who_has_most_on_the_disk_loses_first(tmp_path):
    """Of an address with many photos those of the session with most; nobody's who has few, however old they are."""
    few = stored(tmp_path, 0, Visitor("2.2.2.2", "few"))
    modest = stored(tmp_path, 1, Visitor("1.1.1.1", "modest"))
    many = [stored(tmp_path, number, Visitor("1.1.1.1", "many")) for number in range(2, 6)]
    uploads = {few, modest, *many}
    trim_uploads(uploads, limit=350_000)
    assert uploads == {few, modest, many[-1]}
    owners.forget_all_but(set())
    assert owners.of == {}


def test_a_call_leaves_no_empty_file():
    """Gradio's own file input leaves one at every call, for ever."""
    folder = Path(get_upload_folder())
    before = set(folder.rglob("*"))
    client = Client(live.address(), verbose=False)
    client.predict(handle_file(str(EXAMPLES / "cat.jpg")), 0.5, api_name="/detect")
    left = [path for path in set(folder.rglob("*")) - before if path.is_file()]
    assert all(path.stat().st_size for path in left)
