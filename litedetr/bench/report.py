"""What a benchmark says: rows with their limits, and on which machine they were measured."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure and what it may be at most.

    Attributes:
        group: which part of the benchmark it belongs to, a name of `litedetr.bench.GROUPS`.
        figure: what is measured against what.
        size: "640x640", height first.
        unit: "ratio", ours over theirs; "fraction", a ratio that is written 1/50; "GB", "µs", "ms", "s".
        limit: the most it should be, None where it is for information.
        value: as measured, None where it was not.
        lowest, highest: of the rounds.
        ours, theirs: milliseconds that the ratio compares (medians); ours_wall, theirs_wall: the same by the clock.
        ours_agrees, theirs_agrees: of reduced precision and of exports, with the same detector in float32: the mean IoU of the
            100 best detections with their likest counterparts of the same class, and the share of the same classes.
        note: why there is no value, or what else to know.
        threads: of every contestant.
    """

    group: str
    figure: str
    size: str
    unit: str
    limit: float | None = None
    value: float | None = None
    lowest: float | None = None
    highest: float | None = None
    ours: float | None = None
    theirs: float | None = None
    ours_wall: float | None = None
    theirs_wall: float | None = None
    ours_agrees: tuple[float, float] | None = None
    theirs_agrees: tuple[float, float] | None = None
    note: str = ""
    threads: int = 1

    @property
    def met(self) -> bool | None:
        """Whether the figure keeps its limit; None where there is no figure or no limit."""
        return None if self.value is None or self.limit is None else self.value <= self.limit

    def missing(self, why: str) -> Row:
        """This row, not measured."""
        return replace(self, value=None, note=why)


@dataclass(frozen=True)
class Report:
    """All rows of one run.

    Attributes:
        rows: as measured.
        threads: the numbers of threads it was measured with; rounds: how often.
        machine: processor, its cores and instruction sets, the kernel's path, the load when the run began.
        software: versions.
        date: of the run, YYYY-MM-DD.
    """

    rows: tuple[Row, ...]
    threads: tuple[int, ...]
    rounds: int
    machine: dict[str, Any]
    software: dict[str, str]
    date: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; every row says whether it keeps its limit (`met`)."""
        return asdict(self) | {"rows": [asdict(row) | {"met": row.met} for row in self.rows]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Report:
        """What `to_dict` gave."""
        known = {field.name for field in fields(Row)}
        rows = tuple(
            Row(**{key: tuple(value) if isinstance(value, list) else value for key, value in row.items() if key in known})
            for row in data["rows"]
        )
        return cls(**(data | {"rows": rows, "threads": tuple(data["threads"])}))

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> Report:
        try:
            return cls.from_dict(json.loads(file.read_text(encoding="utf-8")))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"expected a file written by `litedetr bench --json`, got {file}: {error}") from error
