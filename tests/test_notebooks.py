"""The notebooks are those that their sources give, and run; and results show themselves in them."""

import io
import json

import nbformat
from PIL import Image

from docs.notebooks import build


def sources(made: nbformat.NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in made.cells]


def stored(name: str) -> nbformat.NotebookNode:
    return nbformat.read(build.DOCS / name, as_version=4)


def test_the_notebook_runs_and_shows_what_is_stored():
    script = (build.HERE / "lite_detr.py").read_text(encoding="utf-8")
    made = build.run(build.notebook(script))
    kept = stored("lite_detr.ipynb")
    assert sources(kept) == sources(made), "python -m docs.notebooks.build"
    for book in (made, kept):
        nbformat.validate(book)
        shown = [kind for cell in book.cells for output in cell.get("outputs", ()) for kind in output.get("data", ())]
        assert {"image/png", "text/html"} <= set(shown)
        assert shown.count("application/vnd.plotly.v1+json") == 3
        largest = max(len(json.dumps(output)) for cell in book.cells for output in cell.get("outputs", ()))
        assert largest < 1_000_000
        assert "site-packages" not in nbformat.writes(book)


def test_the_lesson_as_a_notebook_has_its_twelve_stops_and_draws_one():
    made = build.notebook(build.lesson_script())
    assert sources(stored("lesson.ipynb")) == sources(made), "python -m docs.notebooks.build"
    stops = [cell for cell in made.cells if cell.source.startswith("show(")]
    assert len(stops) == 12
    made.cells = [*made.cells[:3], stops[4]]
    drawn = build.run(made).cells[-1].outputs[-1].data["application/vnd.plotly.v1+json"]
    assert drawn["layout"]["images"][0]["source"].startswith("data:image/")


def test_results_show_themselves(detector, photo):
    found = detector.predict(photo, 0.0, trace=True)[:3]
    drawn = Image.open(io.BytesIO(found._repr_png_()))
    assert drawn.size == (200, 150)
    x, y = found.boxes[0][:2].astype(int)
    assert drawn.getpixel((min(int(x), 199), min(int(y), 149))) != tuple(photo[min(y, 149), min(x, 199)])
    assert detector.predict_batch([photo])[0]._repr_png_() is None
    page = found.trace._repr_html_()
    assert page.count("<tr>") == 1 + len(found.trace.steps)
    assert "<td style=\"text-align:left\">B1 high</td>" in page
    assert len(repr(found.trace)) < 300
