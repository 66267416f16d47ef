"""Ridge regression from sums, so that what is fitted need not be kept."""

from __future__ import annotations

import torch
from torch import Tensor


def ridge(squares: Tensor, products: Tensor, share: float) -> Tensor:
    """Weights (R,) or (R, N) by least squares with a penalty on all of them but the last ones, those of a constant.

    Args:
        squares: (R, R) sum of x xT, where the last number of each x is 1; products: (R,) or (R, N) sum of x yT.
        share: the penalty, as a part of the mean of x's squares, the constant aside.
    """
    penalty = torch.full((len(squares),), share * float(squares.diagonal()[:-1].mean()), dtype=squares.dtype)
    penalty[-1] = 0.0
    return torch.linalg.solve(squares + penalty.diag(), products)
