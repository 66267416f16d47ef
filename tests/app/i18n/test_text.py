import re

import pytest

from app.i18n import say, texts
from app.run.state import LANGUAGES
from app.stage.component import FOLDER

PLACES = re.compile(r"\{(\w+)\}")
ENGLISH = texts("en")


def test_every_language_has_the_same_places():
    for lang in LANGUAGES:
        for key, text in texts(lang).items():
            assert set(PLACES.findall(text)) == set(PLACES.findall(ENGLISH[key])), (lang, key)


def test_korean_says_everything_but_names():
    korean = texts("ko")
    same = {key: PLACES.sub("", text) for key, text in ENGLISH.items() if korean[key] == text}
    assert {key: text for key, text in same.items() if re.search(r"[a-z]{3}", text)} == {}  # what is left is JSON, GMACs, KDA


@pytest.mark.parametrize("path", sorted([*FOLDER.glob("js/*.js"), FOLDER / "stage.html"]), ids=lambda path: path.name)
def test_every_text_that_the_page_asks_for_exists(path):
    source = path.read_text(encoding="utf-8")
    keys = re.findall(r"say\('([\w.]+)'", source) + re.findall(r'data-(?:text|label)="([\w.]+)"', source)
    assert [key for key in keys if key not in ENGLISH] == []


def test_the_template_is_no_program():
    """Gradio runs {{…}} and ${…} in a template as JavaScript."""
    source = (FOLDER / "stage.html").read_text(encoding="utf-8")
    assert "{{" not in source
    assert "${" not in source
    assert "`" not in source


def test_a_missing_text_is_its_key():
    assert say("en", "no such text") == "no such text"
