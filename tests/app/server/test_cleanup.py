from pathlib import Path

from gradio.utils import get_upload_folder
from gradio_client import Client, handle_file

from app.engine.engine import EXAMPLES
from app.server.cleanup import trim_uploads
from tests.app import live


def test_the_oldest_uploads_go_first(tmp_path):
    names = [str(tmp_path / str(number) / "photo.jpg") for number in range(4)]
    for name in names:
        Path(name).parent.mkdir()
        Path(name).write_bytes(bytes(100))
    uploads = {*names, str(tmp_path / "gone.jpg")}
    for _ in range(2):
        trim_uploads(uploads, limit=250)
        assert uploads == set(names[2:])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]  # their folders went too


def test_a_call_leaves_no_empty_file():
    """Gradio's own file input leaves one at every call, for ever."""
    folder = Path(get_upload_folder())
    before = set(folder.rglob("*"))
    client = Client(live.address(), verbose=False)
    client.predict(handle_file(str(EXAMPLES / "cat.jpg")), 0.5, api_name="/detect")
    left = [path for path in set(folder.rglob("*")) - before if path.is_file()]
    assert all(path.stat().st_size for path in left)
