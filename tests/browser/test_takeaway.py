"""Figures leave the page as files, as links and as lines of Python, and are the same without it."""

import base64
import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.views import VIEWS, points
from tests.app import live
from tests.browser.conftest import watched
from tests.browser.driver import current, open_page, send

ROOT = Path(__file__).resolve().parents[2]
QUERY = "t=0&example=cat&view=points&at=0.4,0.5&step=B3+all&head=2"


@pytest.fixture
def dialog(page, url):
    open_page(page, url, QUERY)
    page.locator('[data-part="take-away"]').click()
    yield page
    page.locator('[data-part="take-close"]').click()


def save(page, kind, folder):
    with page.expect_download() as waiting:
        page.locator(f'[data-file="{kind}"]').click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_svg_and_png_hold_the_photo(dialog, tmp_path):
    path = save(dialog, "svg", tmp_path)
    assert path.name == "cat-points-lite-detr.svg"
    text = path.read_text(encoding="utf-8")
    photo = re.search(r"data:image/jpeg;base64,([\w+/=]+)", text)[1]
    run, state = current(dialog)
    assert Image.open(io.BytesIO(base64.b64decode(photo))).size == run.size[::-1]
    expected = sum(len(trace.x) for trace in points.VIEW.figure(run, state).data if trace.mode == "markers")
    assert len(re.findall(r'<path class="point', text)) == expected
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)
    picture = Image.open(save(dialog, "png", tmp_path))
    assert max(picture.size) >= 1500


def test_the_csv_lists_the_points_that_are_drawn(page, url, tmp_path):
    open_page(page, url, "t=0&example=cat&view=points")
    query = page.evaluate("liteDetr.info.detections[2].query")
    asking = {  # the choice -> whose points they are; a place of the photo is no query
        "at=0.4,0.5&step=B3+all": ("B3 all", ""),
        "at=0.02,0.98&step=B2+high&scale=S3": ("B2 high", ""),
        f"q={query}&step=decoder+2": ("decoder 2", str(query)),
        f"q={query}&step=B1+all": ("B1 all", str(query)),  # of the token that became it
    }
    for choice, who in asking.items():
        open_page(page, url, f"t=0&example=cat&view=points&head=2&{choice}")
        page.locator('[data-part="take-away"]').click()
        rows = list(csv.DictReader(save(page, "csv", tmp_path).open(encoding="utf-8")))
        page.locator('[data-part="take-close"]').click()
        assert {(row["step"], row["query"]) for row in rows} == {who}
        run, state = current(page)
        drawn = [(x, y) for trace in points.VIEW.figure(run, state).data if re.match(r"S\d$", str(trace.meta))
                 for x, y in zip(trace.x, trace.y, strict=True)]  # fmt: skip
        listed = [(float(row["x"]), float(row["y"])) for row in rows if row["head"] == "2"]
        np.testing.assert_allclose(sorted(listed), sorted(drawn), atol=0.011)


def test_the_page_of_its_own_works_offline(dialog, context, tmp_path):
    run, state = current(dialog)
    path = save(dialog, "html", tmp_path)
    other = watched(context)
    context.set_offline(True)
    try:
        other.goto(path.as_uri())
        other.wait_for_selector(".figure .main-svg")
        drawn = other.evaluate(
            "document.querySelector('.figure').data.filter(({ meta }) => /^S\\d$/.test(meta)).map(({ x }) => [...x])"
        )
        photo = other.locator(".figure image").first.get_attribute("href")
    finally:
        context.set_offline(False)
    expected = [trace.x for trace in points.VIEW.figure(run, state).data if re.match(r"S\d$", str(trace.meta))]
    for x, right in zip(drawn, expected, strict=True):
        np.testing.assert_allclose(x, right, rtol=1e-5)
    assert photo.startswith("data:image/jpeg;base64")
    assert other.errors == []
    assert [address for address in other.strangers if not address.startswith("file:")] == []
    other.close()


def test_the_lines_of_python_draw_it_again(dialog, tmp_path):
    run, state = current(dialog)
    code = dialog.inner_text('[data-part="take-code"]')
    assert code.split("\n")[0].startswith("# Runs in a checkout")
    assert code.split("\n")[1] == "from app.figure import redraw"
    script = tmp_path / "again.py"
    numbers = "[[None if value is None else float(value) for value in trace.x] for trace in figure.data]"
    told = f"json.dump([{numbers}, figure.layout.images[0].source], open('figure.json', 'w'))"
    script.write_text(f"{code}\nimport json\n{told}\n", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LITEDETR_MODEL": str(live.model_folder()), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=environment, check=True, timeout=300)
    assert "<html" in (tmp_path / "figure.html").read_text(encoding="utf-8")[:200]
    again, photo = json.loads((tmp_path / "figure.json").read_text(encoding="utf-8"))
    for x, right in zip(again, points.VIEW.figure(run, state).data, strict=True):
        np.testing.assert_allclose(np.array(x, dtype=float), np.array(right.x, dtype=float), rtol=1e-3, atol=0.05)
    assert photo.startswith("data:image/jpeg")


def test_the_lines_of_python_of_every_view_run(dialog, tmp_path):
    codes = dialog.evaluate(
        """async (views) => {
        const { snippet } = await import("/lite/stage/js/takeaway.js");
        return views.map((view) => snippet({ ...liteDetr.state, view, q: '0', box: '0.1,0.1,0.5,0.6' }, liteDetr.info));
    }""",
        list(VIEWS),
    )
    told = "print(view, len(figure.data) + len(figure.layout.images))"
    once = "import functools, app.figure\napp.figure.Engine = functools.cache(app.figure.Engine)\n"
    script = once + "\n".join(f"{code}\nview = {view!r}\n{told}" for view, code in zip(VIEWS, codes, strict=True))
    (tmp_path / "again.py").write_text(script, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LITEDETR_MODEL": str(live.model_folder()), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "again.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.stderr == ""
    drawn = dict(line.split() for line in ran.stdout.splitlines())
    assert list(drawn) == list(VIEWS)
    assert all(int(parts) > 0 for parts in drawn.values())


def test_a_link_is_the_state_and_never_somebodys_photo(page, url, tmp_path):
    open_page(page, url, QUERY)
    page.locator('[data-part="take-away"]').click()
    link = page.inner_text('[data-part="take-link"]')
    assert link == page.url
    assert page.locator('[data-part="take-private"]').is_hidden()
    page.locator('[data-part="take-close"]').click()
    Image.effect_noise((200, 150), 80).convert("RGB").save(tmp_path / "private.png")
    send(page, tmp_path / "private.png")
    page.evaluate("liteDetr.change({ view: 'points', at: '0.5,0.5', box: '0.1,0.1,0.5,0.5' })")
    page.wait_for_function("!liteDetr.asking && !liteDetr.pending")
    page.locator('[data-part="take-away"]').click()
    link = page.inner_text('[data-part="take-link"]')
    assert page.locator('[data-part="take-private"]').is_visible()
    assert not re.search(r"private|at=|box=|view=|example=", link)
    page.locator('[data-part="take-close"]').click()


def test_on_a_projector_and_in_a_frame(page, context, url):
    """The whole screen for stage and rail; in another page stage, rail and the view's own, and the page around hears how tall."""
    open_page(page, url, QUERY)
    page.locator('[data-part="present"]').click()
    page.wait_for_function("liteDetr.root.dataset.present === 'yes' && document.fullscreenElement === liteDetr.root")
    assert page.locator(".ld-stage, .ld-rail").evaluate_all("nodes => nodes.every((node) => node.offsetHeight > 60)")
    assert page.locator(".ld-side, .ld-inspector, .ld-top").evaluate_all("nodes => nodes.every((node) => !node.offsetHeight)")
    page.evaluate("document.exitFullscreen()")
    page.wait_for_function("liteDetr.root.dataset.present === 'no'")
    page.locator('[data-part="take-away"]').click()
    frame = page.inner_text('[data-part="take-frame"]').replace("__theme=light", "__theme=dark&lang=ko")
    page.locator('[data-part="take-close"]').click()
    around = watched(context)
    around.set_content(f"<h1>Lecture</h1>{frame}")
    framed = around.frames[-1]
    framed.wait_for_function("window.liteDetr?.info && liteDetr.root.dataset.busy === 'no' && !liteDetr.asking")
    tall = framed.evaluate("liteDetr.root.offsetHeight")
    around.wait_for_function(f"document.querySelector('iframe').height === '{tall}'")
    shown = "nodes => nodes.filter((node) => node.offsetParent).map((node) => node.className.split(' ')[0])"
    assert framed.locator(".ld > :not(.ld-skip)").evaluate_all(shown) == ["ld-stage", "ld-inspector", "ld-rail"]
    assert framed.evaluate("[document.body.classList.contains('dark'), document.documentElement.lang]") == [True, "ko"]
    assert (around.errors, around.strangers) == ([], [])
    around.close()
