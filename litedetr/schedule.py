"""The interleaved update schedule of the encoder (paper, sections 3.2 and 3.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

StepKind = Literal["high", "all"]

_NOTATION = re.compile(r"H(\d{1,3})L(\d{1,3})-\((\d{1,3})\+1\)x(\d{1,3})", re.ASCII)


def scale_name(level: int, levels: int) -> str:
    """Name of a tensor level (0 = finest) in the paper's numbering: S1 is the coarsest scale."""
    return f"S{levels - level}"


@dataclass(frozen=True)
class EncoderStep:
    """One encoder layer: which scales are updated by it.

    Attributes:
        index: position among all steps, from 0.
        block: the block it belongs to, from 0.
        kind: "high" updates the high-level scales alone; "all" updates every scale at once.
        name: short label, e.g. "B1 high", "B1 all"; "B1 high 2" where a block has several high steps.
        query_levels: levels whose tokens are queries (and are replaced), as tensor indices, finest = 0.
    """

    index: int
    block: int
    kind: StepKind
    name: str
    query_levels: tuple[int, ...]


@dataclass(frozen=True)
class EncoderSchedule:
    """``H{high}L{low}-({updates}+1)x{blocks}``: in each block the high-level scales are updated `updates` times, the
    low-level ones once, at the block's end, in the same layer as the last high-level update.

    Attributes:
        high: number of high-level (coarse) scales, at least 1.
        low: number of low-level (fine) scales; 0 means that every layer updates everything.
        updates: high-level updates per block (A), at least 1.
        blocks: number of blocks (B), at least 1.
    """

    high: int
    low: int
    updates: int
    blocks: int

    def __post_init__(self) -> None:
        if self.high < 1 or self.low < 0 or self.updates < 1 or self.blocks < 1:
            raise ValueError(
                f"expected a schedule with high >= 1, low >= 0, updates >= 1 and blocks >= 1, got high={self.high}, "
                f"low={self.low}, updates={self.updates}, blocks={self.blocks}: write one like H3L1-(2+1)x3"
            )

    @classmethod
    def parse(cls, text: str) -> EncoderSchedule:
        """Read the paper's notation, e.g. ``H3L1-(2+1)x3``."""
        match = _NOTATION.fullmatch(text.replace(" ", "").replace("×", "x"))
        if match is None:
            raise ValueError(f"expected a schedule like H3L1-(2+1)x3, got {text[:60]!r}: give H, L, A and B as numbers")
        return cls(*map(int, match.groups()))

    @classmethod
    def full(cls, levels: int = 4, layers: int = 6) -> EncoderSchedule:
        """The ordinary encoder: every layer updates every scale."""
        return cls(high=levels, low=0, updates=1, blocks=layers)

    def __str__(self) -> str:
        return f"H{self.high}L{self.low}-({self.updates}+1)x{self.blocks}"

    @property
    def levels(self) -> int:
        """Number of feature scales."""
        return self.high + self.low

    @property
    def is_full(self) -> bool:
        """True where every layer updates every scale."""
        return self.low == 0 or self.updates == 1

    def steps(self) -> tuple[EncoderStep, ...]:
        """Every encoder layer in order."""
        return tuple(self._step(block, update) for block in range(self.blocks) for update in range(self.updates))

    def _step(self, block: int, update: int) -> EncoderStep:
        last = update == self.updates - 1
        number = f" {update + 1}" if self.updates > 2 and not last else ""
        return EncoderStep(
            index=block * self.updates + update,
            block=block,
            kind="all" if last else "high",
            name=f"B{block + 1} {'all' if last else 'high'}{number}",
            query_levels=tuple(range(0 if last else self.low, self.levels)),
        )
