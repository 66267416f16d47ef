"""Makes docs/lite_detr.ipynb from lite_detr.py beside this, and docs/lesson.ipynb from app/lessons:

    python -m docs.notebooks.build

Cells are separated by ``# %%``; a cell of text is called ``[markdown]``, and one called ``install`` is not run here.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import tomllib
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from app.lessons import lesson

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent
PROJECT = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
"""For the badge and for pip."""
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{repository}/blob/main/docs"
)
SKIP = "skip-execution"


def notebook(text: str) -> nbformat.NotebookNode:
    """A script's cells, not yet run."""
    cells = []
    for index, cell in enumerate(re.split(r"^# %%", text.replace("{repository}", REPOSITORY), flags=re.MULTILINE)[1:]):
        kind, _, content = cell.partition("\n")
        content = content.strip("\n")
        uncommented = re.sub(r"^# ?", "", content, flags=re.MULTILINE)
        if kind.strip() == "[markdown]":
            cells.append(new_markdown_cell(uncommented, id=f"cell-{index}"))
        else:
            install = kind.strip() == "install"
            metadata = {"tags": [SKIP]} if install else {}
            cells.append(new_code_cell(uncommented if install else content, id=f"cell-{index}", metadata=metadata))
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(cells=cells, metadata=about)


def lesson_script() -> str:
    """The lesson's stops as a script: each one's words, and the view that it opens as a figure."""
    parts = [
        f"# %% [markdown]\n# # A lesson in twelve stops\n#\n# {BADGE}/lesson.ipynb)\n#\n# The lesson of the page, for those who "
        "teach in notebooks. Run the cells one after the other.",
        "# %% install\n# %pip install -q \"litedetr[page] @ git+https://github.com/{repository}\"\n"
        "# !git clone -q --depth 1 https://github.com/{repository} lite-detr\n# %cd lite-detr",
        "# %%\nfrom app.engine.engine import MODEL, Engine\nfrom app.figure import redraw\n"
        "from app.run.state import ViewState\n\nengine = Engine(MODEL)  # keeps the runs of one photo\n\n\ndef show(state):\n"
        '    """What the page draws in a state, as its link has it."""\n'
        "    return redraw(ViewState.from_query(state).example, state, engine=engine)",
    ]  # fmt: skip
    for number, stop in enumerate(lesson("en"), start=1):
        words = f"## {number}. {stop['title']}\n\n{stop['text']}\n\n*Try:* {stop['try']}"
        parts.append("# %% [markdown]\n" + re.sub("^", "# ", words, flags=re.MULTILINE))
        parts.append(f"# %%\nshow({json.dumps(stop['link'])})")
    return "\n\n".join(parts) + "\n"


def run(made: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with its outputs."""
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(made, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}})
        client.execute(env=os.environ | {"PYTHONPATH": str(DOCS.parent)})  # the clone's litedetr, whatever is installed
    for cell in made.cells:
        cell.metadata.pop("execution", None)  # when each one ran
        if cell.cell_type == "code":  # warnings name places of the machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return made


def main() -> None:
    nbformat.write(run(notebook((HERE / "lite_detr.py").read_text(encoding="utf-8"))), DOCS / "lite_detr.ipynb")
    nbformat.write(notebook(lesson_script()), DOCS / "lesson.ipynb")


if __name__ == "__main__":
    main()
