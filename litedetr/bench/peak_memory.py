"""Peak memory of one run from nothing, measured in a process of its own:

python -m litedetr.bench.peak_memory CONFIG HEIGHT WIDTH DTYPE     (CONFIG as JSON; writes one JSON object)
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from litedetr.bench.ours import optimised
from litedetr.config import DetectorConfig

STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Memory:
    """Bytes of a process that builds a detector and runs it on one photo.

    Attributes:
        model: the weights' own size.
        ready: resident before the run: Python, PyTorch and the model.
        peak: the most that was ever resident, building included.
        run: the most during the run.
    """

    model: int
    ready: int
    peak: int
    run: int

    @property
    def above_model(self) -> int:
        """Everything but the weights themselves, Python and PyTorch included."""
        return self.peak - self.model


def measure(config: DetectorConfig, size: tuple[int, int], dtype: torch.dtype, threads: int) -> Memory:
    """Runs a fresh process; raises `RuntimeError` with its last words if it fails."""
    numbers = [str(number) for number in (*size, str(dtype).removeprefix("torch."), threads)]
    command = [sys.executable, "-m", "litedetr.bench.peak_memory", json.dumps(config.to_dict()), *numbers]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    if done.returncode:
        raise RuntimeError(f"expected the memory of a run, got {done.stderr.strip().splitlines()[-1:]}")
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def run(config: DetectorConfig, size: tuple[int, int], dtype: torch.dtype) -> Memory:
    """Builds, optimises, predicts, in this process."""
    detector, weights = optimised(config, dtype)
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    ready, built = _resident("VmRSS"), _resident("VmHWM")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    detector.predict(photo)
    peak = _resident("VmHWM")
    return Memory(model=weights, ready=ready, peak=max(built, peak), run=peak)


def _resident(field: str) -> int:
    """Bytes; VmRSS is now, VmHWM the most so far."""
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(field + ":"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    settings, height, width, precision, count = sys.argv[1:]
    torch.set_num_threads(int(count))
    result = run(DetectorConfig.from_dict(json.loads(settings)), (int(height), int(width)), getattr(torch, precision))
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
