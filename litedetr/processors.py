"""How many processors this process may use, and how PyTorch's threads wait for each other. Read before PyTorch is imported."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path


def granted(root: Path = Path("/")) -> int:
    """Processors that this process may use: those that it is bound to, or fewer where its control groups have a quota.

    Args:
        root: of the file system, where ``proc`` and ``sys`` are read; those are of Linux.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(bound, math.ceil(min(_quotas(root), default=bound))))


def wait_passively() -> None:
    """Let PyTorch's threads sleep while they wait, and start no more of them than there are processors for.

    OpenMP's threads spin for each other otherwise: beside other processes they take what those, and they themselves, need. It
    reads the environment when PyTorch is imported; after that nothing changes any more. What the environment says already stays.
    """
    if "torch" in sys.modules:
        return
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if granted() < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(granted()))


def _quotas(root: Path) -> list[float]:
    """Processors that the control groups grant, from the process' own up to the outermost, in both versions."""
    quotas = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            folder, names = "sys/fs/cgroup", ["cpu.max"]
        elif "cpu" in controllers.split(","):
            folder, names = f"sys/fs/cgroup/{controllers}", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        inside = Path(path.lstrip("/"))
        for group in (inside, *inside.parents):
            words = " ".join(_text(root / folder / group / name) for name in names).split()
            if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
                quotas.append(int(words[0]) / int(words[1]))
    return quotas


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
