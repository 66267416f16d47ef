"""Weights between two trainings: what a fine-tuning gained and what it forgot, weighed (Wortsman et al. 2022).

    python -m litedetr.training.average BEFORE AFTER --share 0.5 --out DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from litedetr.detector import Detector


def average(before: Detector, after: Detector, share: float) -> Detector:
    """A new detector whose weights lie `share` of the way from `before` to `after`; both must have the same parts.

    Raises:
        ValueError: they have not.
    """
    old, new = before.state_dict(), after.state_dict()
    other = sorted(key for key in old.keys() | new.keys() if key not in old or key not in new or old[key].shape != new[key].shape)
    if other:
        raise ValueError(
            f"expected two detectors with the same weights, got {len(other)} that are not ({', '.join(other[:3])}, …): "
            "average one with what it was trained to"
        )
    between = Detector(after.config)
    between.load_state_dict({k: torch.lerp(old[k], v, share) if v.is_floating_point() else v for k, v in new.items()})
    return between


def main() -> None:
    """Command line: a third weights folder out of two."""
    parser = argparse.ArgumentParser(prog="python -m litedetr.training.average", description=__doc__.split("\n\n")[0])
    parser.add_argument("before", type=Path, help="a weights folder")
    parser.add_argument("after", type=Path, help="another one, trained from it")
    parser.add_argument("--share", type=float, default=0.5, help="0 is the first one, 1 the second (default: 0.5)")
    parser.add_argument("--out", type=Path, required=True, help="the weights folder to write")
    options = parser.parse_args()
    both = (Detector.from_pretrained(str(folder)) for folder in (options.before, options.after))
    average(*both, options.share).save_pretrained(options.out, dtype=torch.float16)


if __name__ == "__main__":
    main()
