"""The figures as JSON, as a table, in a document and on the command line."""

import json
from pathlib import Path

import pytest

from litedetr.bench import table
from litedetr.bench.report import Report, Row
from litedetr.bench.rows import GROUPS
from litedetr.cli import main

ROWS = (
    Row("core", "fast / slow", "640x640", "fraction", 1 / 50, 1 / 53.21, 1 / 60, 1 / 50, 5.0, 266.05),
    Row("encoder", "a / b", "800x1066", "ratio", 0.42, 0.4241, 0.41, 0.43, 651.2, 1535.0, 660.0, 1600.0),
    Row("detector", "a / c", "640x640", "ratio", None, 1.5, 1.4, 1.6, 3.0, 2.0, 3.0, 2.0, None, (0.934, 0.91)),
    Row("memory", "peak", "800x1066", "GB", 1.2, 1.19),
    Row("cuda", "kernel", "800x1066", "µs", 60, note="not yet run: no GPU here"),
)
MACHINE = {"processor": "A processor", "cores": 2, "instructions": ["avx2"], "kernel": "avx2", "gpu": None, "load": 0.5}
REPORT = Report(ROWS, (1, 2), 5, MACHINE, {"python": "3.11"}, "2026-01-02")


def test_json_round_trip(tmp_path):
    REPORT.save(tmp_path / "speed.json")
    assert Report.load(tmp_path / "speed.json") == REPORT
    data = json.loads((tmp_path / "speed.json").read_text())
    assert set(data) == {"rows", "threads", "rounds", "machine", "software", "date"}
    assert [row["met"] for row in data["rows"]] == [True, False, None, True, None]


def test_another_file_is_refused(tmp_path):
    for text in ("no json", "[]", '{"rows": [{}]}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ValueError, match="written by `litedetr bench --json`"):
            Report.load(tmp_path / "x.json")


def test_the_table():
    lines = table.markdown(REPORT).splitlines()
    assert lines[2:7] == [
        "| fast / slow | 640 × 640 | 1 | 1/53.2 | 1/60.0 – 1/50.0 | 1/50 | met | 5.0 | 266 |",
        "| a / b | 800 × 1066 | 1 | .424 | .410 – .430 | .42 | **missed** | 651 | 1535 |",
        "| a / c | 640 × 640 | 1 | 1.500 | 1.400 – 1.600 |  |  | 3.0 | 2.0 (IoU .934, 91 %) |",
        "| peak | 800 × 1066 | 1 | 1.190 GB |  | 1.2 GB | met |  |  |",
        "| kernel | 800 × 1066 | 1 | not yet run: no GPU here |  | 60 µs |  |  |  |",
    ]
    assert (
        "Measured 2026-01-02 on A processor, 2 cores (avx2), load 0.5 when it began; no GPU. Processor time where a row has one "
        "thread, else by the clock: median of 5 rounds"
    ) in lines[-1]


def test_into_a_document(tmp_path, capsys):
    REPORT.save(tmp_path / "speed.json")
    document = tmp_path / "page.md"
    document.write_text(f"before\n{table.BEGIN}old\n{table.END}\nafter\n", encoding="utf-8")
    assert main(["bench", "--from", str(tmp_path / "speed.json"), "--markdown", str(document)]) == 0
    assert capsys.readouterr().out == table.markdown(REPORT)
    written = document.read_text(encoding="utf-8")
    assert written == f"before\n{table.BEGIN}{table.markdown(REPORT)}{table.END}\nafter\n"
    document.write_text("no place here\n", encoding="utf-8")
    assert main(["bench", "--from", str(tmp_path / "speed.json"), "--markdown", str(document)]) == 2
    assert document.read_text(encoding="utf-8") == "no place here\n"


def test_the_command(tmp_path, capsys):
    assert main(["bench", "--rows", "cuda", "--quick", "--json", str(tmp_path / "speed.json")]) == 0
    output = capsys.readouterr().out
    report = Report.load(tmp_path / "speed.json")
    assert output == table.markdown(report)
    assert (report.rounds, report.threads) == (2, (1,))
    assert main(["bench", "--rows", "cuda,engine"]) == 2
    assert f"expected rows out of {', '.join(GROUPS)}, got engine" in capsys.readouterr().err


def test_the_documents_show_what_was_measured():
    """docs/speed.md is written from docs/speed.json, which a run wrote."""
    docs = Path(__file__).parents[2] / "docs"
    report = Report.load(docs / "speed.json")
    written = (docs / "speed.md").read_text(encoding="utf-8")
    assert table.BEGIN + table.markdown(report) + table.END in written
