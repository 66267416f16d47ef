"""What a visitor sees who is not the first."""

import pytest

from tests.app import live
from tests.browser.driver import current, open_page
from tests.pictures import scene


@pytest.mark.parametrize(("lang", "sentence"), [("en", "1 before you"), ("ko", "앞에 1명")])
def test_the_place_in_the_queue_is_shown_and_a_newer_photo_gives_it_up(page, url, lang, sentence, tmp_path):
    open_page(page, url, f"t=0&lang={lang}")
    before, ticket = page.evaluate("[liteDetr.info.run, liteDetr.ticket]")
    queue = live.engine().queue
    with queue.turn(alone=True):
        for width in (100, 120):
            scene(width, 90).save(tmp_path / f"{width}.png")
            page.set_input_files('[data-part="file"]', str(tmp_path / f"{width}.png"))
            page.wait_for_function(
                """([ticket, text]) => liteDetr.running > ticket
                && document.querySelector('[data-part=status]').textContent.includes(text)""",
                arg=[ticket, sentence],
            )
            ticket = page.evaluate("liteDetr.running")
        while len(queue) > 2:  # the first photo's job leaves
            page.wait_for_timeout(50)
    page.wait_for_function("run => liteDetr.info.run !== run && document.querySelector('.ld').dataset.busy === 'no'", arg=before)
    assert current(page)[0].size == (90, 120)
