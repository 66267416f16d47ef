"""Every explained word is explained in both languages, and stands somewhere."""

import json
import re

from app.i18n import texts
from app.lessons import glossary, lesson
from app.run.state import LANGUAGES


def test_words_are_explained_in_both_languages():
    english, korean = glossary("en"), glossary("ko")
    assert [term["id"] for term in english] == [term["id"] for term in korean]
    assert len({term["id"] for term in english}) == len(english)
    for term in korean:
        assert re.search("[가-힣]{2}", term["text"])


def test_every_word_stands_in_the_page():
    for lang in LANGUAGES:
        written = json.dumps([*texts(lang).values(), *lesson(lang)], ensure_ascii=False) + " Σ H3L1-(2+1)x3"
        for term in glossary(lang):
            assert any(name in written for name in term["names"]), term["id"]
