import re

import pytest

from app.i18n import class_name, classes, say, step_name, texts
from app.run.state import LANGUAGES
from app.stage.component import FOLDER
from litedetr.coco import NAMES as COCO

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


def test_classes_and_steps_are_called_as_the_language_does():
    assert set(classes("ko")) == set(COCO)
    assert all(re.search("[가-힣]", name) for name in classes("ko").values())
    assert len(set(classes("ko").values())) == 80
    assert class_name("ko", "cat") == "고양이"
    assert (class_name("en", "cat"), class_name("ko", "my own class")) == ("cat", "my own class")
    called = {"B1 high": "B1 고수준", "B3 all": "B3 전체", "decoder 2": "디코더 2", "backbone": "백본"}
    assert {name: step_name("ko", name) for name in called} == called
    for name in ("B1 high", "B2 all", "decoder 3", "encoder 6", "backbone", "selection", "start", "my own step 4"):
        assert step_name("en", name) == name
    assert say("ko", "lookers.note.nobody", step="B1 high").startswith("B1 고수준")
    assert say("ko", "query.guess", name="dog", score="0.50").endswith("개 0.50")
