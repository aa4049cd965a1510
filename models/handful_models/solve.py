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


def invert_positive(matrix: Tensor) -> Tensor:
    """The inverse of symmetric positive definite `matrix [task, d, d]`.

    Gauss-Jordan elimination in place, unrolled over d: with column c and row r through the pivot p, a step is
    `A - (c - e)(r + e)' / p`. Rows and columns are first scaled to a diagonal of 1, so every pivot is at most 1:
    a large one would lose digits in the pivot's own entry.
    """
    size = matrix.shape[-1]
    root = torch.diagonal(matrix, dim1=-2, dim2=-1).rsqrt()
    scale = root.unsqueeze(-1) * root.unsqueeze(-2)
    table, units = matrix * scale, torch.eye(size)
    for place in range(size):
        unit = units[:, place : place + 1]
        column = table[:, :, place : place + 1]
        row = table[:, place : place + 1, :]
        table = table - (column - unit) * ((row + unit.T) / row[:, :, place : place + 1])
    return table * scale
