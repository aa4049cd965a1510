"""Linear systems with operators that ONNX has."""

import torch
from torch import Tensor


def solve_positive(matrix: Tensor, right: Tensor) -> Tensor:
    """`matrix^-1 right` for symmetric positive definite `matrix [task, d, d]` and `right [task, d, k]`.

    Gauss-Jordan elimination without pivoting, unrolled over d: stable for such matrices, and exact up to rounding,
    where iterative schemes lose digits when the matrix is badly conditioned.
    """
    size = matrix.shape[-1]
    table = torch.cat([matrix, right], -1)
    for place in range(size):
        row = table[:, place : place + 1] / table[:, place : place + 1, place : place + 1]
        factor = table[:, :, place : place + 1]
        keep = (torch.arange(size) != place).to(table.dtype).reshape(1, size, 1)
        table = keep * (table - factor * row) + (1 - keep) * row
    return table[:, :, size:]
