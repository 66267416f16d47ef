"""The table of models in the README is what the presets give."""

from pathlib import Path

from litedetr.cli import main
from litedetr.config import presets

DOCUMENT = Path(__file__).parents[2] / "README.md"


def test_the_table_is_generated(capsys):
    assert main(["models"]) == 0
    table = capsys.readouterr().out
    assert all(f"| `{name}` |" in table for name in presets())
    begin, end = "<!-- models: python -m litedetr models -->\n", "<!-- /models -->"
    written = DOCUMENT.read_text(encoding="utf-8").split(begin)[1].split(end)[0]
    assert written == table, "write the README's table again: python -m litedetr models"
