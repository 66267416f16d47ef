"""The report as a table in Markdown, and into documents that have a place for it."""

from __future__ import annotations

from pathlib import Path

from litedetr.bench.report import Report, Row

BEGIN, END = "<!-- bench: python -m litedetr bench -->\n", "<!-- /bench -->"


def markdown(report: Report) -> str:
    """What it was measured on, and one line a row."""
    lines = [
        "| figure | photo | threads | measured | spread | limit | | ours, ms | theirs, ms |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_line(row) for row in report.rows),
        "",
        _circumstances(report),
    ]
    return "\n".join(lines) + "\n"


def number(value: float | None, unit: str) -> str:
    """A measured figure: 1/53.2 · .412 · 1.190 GB · 58.1 µs; nothing for None."""
    if value is None:
        return ""
    if unit == "fraction" and value < 0.5:
        return f"1/{1 / value:.1f}"
    if unit in ("fraction", "ratio"):
        return f"{value:.3f}".removeprefix("0")
    return f"{value:.3f} GB" if unit == "GB" else f"{value:.1f} {unit}"


def limit(value: float | None, unit: str) -> str:
    """A limit as it was set: 1/50 · .42 · 1.2 GB · 60 µs; nothing for None."""
    if value is None:
        return ""
    if unit == "fraction":
        return f"1/{1 / value:.0f}"
    return f"{value:g}".removeprefix("0") if unit == "ratio" else f"{value:g} {unit}"


def write_into(file: Path, report: Report) -> None:
    """Replaces what stands between the marks in a document; raises `ValueError` where it has none."""
    text = file.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"expected {file} to have a line {BEGIN.strip()} and after it {END}: put them where the table belongs")
    file.write_text(before + begin + markdown(report) + end + after, encoding="utf-8")


def _line(row: Row) -> str:
    spread = "" if row.lowest is None else f"{number(row.lowest, row.unit)} – {number(row.highest, row.unit)}"
    verdict = {True: "met", False: "**missed**", None: ""}[row.met]
    measured = row.note if row.value is None else number(row.value, row.unit) + (f" ({row.note})" if row.note else "")
    size, most = row.size.replace("x", " × "), limit(row.limit, row.unit)
    ours, theirs = (row.ours, row.theirs) if row.threads == 1 or row.ours_wall is None else (row.ours_wall, row.theirs_wall)
    times = _ms(ours, row.ours_agrees), _ms(theirs, row.theirs_agrees)
    cells = (row.figure, size, str(row.threads), measured, spread, most, verdict, *times)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _ms(value: float | None, agrees: tuple[float, float] | None) -> str:
    """Milliseconds, and what they find: 488 (IoU .934, 91 %)."""
    if value is None:
        return ""
    said = "" if agrees is None else f" (IoU {number(agrees[0], 'ratio')}, {agrees[1]:.0%})".replace("%)", " %)")
    return (f"{value:.1f}" if value < 100 else f"{value:.0f}") + said


def _circumstances(report: Report) -> str:
    machine = report.machine
    load = f", load {machine['load']} when it began" if machine.get("load") is not None else ""
    versions = ", ".join(f"{name} {version}" for name, version in report.software.items())
    where = f"{machine['processor']}, {machine['cores']} cores ({' '.join(machine['instructions'])}){load}"
    compared = any(row.ours_agrees or row.theirs_agrees for row in report.rows)
    agreement = (
        " In brackets, how far a reduced precision or an export agrees with the same model in float32: mean matched IoU of the "
        "100 best detections, share of the same classes. Of random weights, whose scores lie close together, it is a lower bound."
    )
    return (
        f"Measured {report.date} on {where}; {machine['gpu'] or 'no GPU'}. Processor time where a row has one "
        f"thread, else by the clock: median of {report.rounds} rounds, and as the spread the lowest and the highest round. "
        f"{versions}.{agreement if compared else ''}"
    )
