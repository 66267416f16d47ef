"""The instruction sets that the CPU kernel is compiled for."""

from __future__ import annotations

from enum import StrEnum

import torch


class Instructions(StrEnum):
    """From the least to the most: a processor that has one has those before it."""

    PORTABLE = "portable"
    AVX2 = "avx2"
    AVX512 = "avx512"

    @property
    def path(self) -> int:
        """The number that the kernel knows it by: `LitedetrPath` of ext/attention.h."""
        return list(Instructions).index(self) + 1

    @property
    def all(self) -> list[Instructions]:
        """It and those before it."""
        return list(Instructions)[: self.path]

    @classmethod
    def best(cls) -> Instructions:
        """What this processor has."""
        return {"AVX512": cls.AVX512, "AVX2": cls.AVX2}.get(torch.backends.cpu.get_cpu_capability(), cls.PORTABLE)

    @classmethod
    def named(cls, name: str) -> Instructions:
        """The set of a name, the best one of this processor for "auto".

        Raises:
            ValueError: there is no such set, or this processor has not got it.
        """
        best = cls.best()
        if name not in ("auto", *best.all):
            raise ValueError(f"expected one of {', '.join(('auto', *best.all))} on this machine, got {name!r}")
        return best if name == "auto" else cls(name)
