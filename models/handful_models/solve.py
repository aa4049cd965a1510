"""Linear systems with operators that ONNX has."""

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan


def solve_positive(matrix: Tensor, right: Tensor) -> Tensor:
    """`matrix^-1 right` for symmetric positive definite `matrix [task, d, d]` and `right [task, d, k]`.

    Gauss-Jordan elimination without pivoting: stable for such matrices, and exact up to rounding, where iterative
    schemes lose digits when the matrix is badly conditioned.
    """
    size = matrix.shape[-1]
    return _eliminated(torch.cat([matrix, right], -1), size)[:, :, size:]


def invert_positive(matrix: Tensor, ridge: Tensor | float = 0.0) -> Tensor:
    """The inverse of `matrix + diag(ridge)`, symmetric positive definite.

    `matrix` is `[task, d, d]`, `ridge` a number or `[d]`. Gauss-Jordan elimination in place. Rows and columns are first
    scaled to a diagonal of 1, so every pivot is at most 1: a large one would lose digits in the pivot's own entry.
    """
    root = (torch.diagonal(matrix, dim1=-2, dim2=-1) + ridge).rsqrt()
    scale = root.unsqueeze(-1) * root.unsqueeze(-2)
    diagonal = torch.eye(matrix.shape[-1], dtype=torch.bool)
    scaled = torch.where(diagonal, torch.ones((), dtype=matrix.dtype), matrix * scale)
    return _eliminated(scaled, matrix.shape[-1], in_place=True) * scale


def _eliminated(table: Tensor, size: int, *, in_place: bool = False) -> Tensor:
    """The table `[task, size, size or more]` after every step; an export makes one graph of a step, in a `Scan`."""
    if torch.compiler.is_exporting():
        places = torch.arange(size)
        table, _ = scan(lambda before, place: (_step(before, place, in_place), place.clone()), table.detach(), places)
        return table
    for place in torch.arange(size):
        table = _step(table, place, in_place)
    return table


def _step(table: Tensor, place: Tensor, in_place: bool) -> Tensor:
    """With column c and row r through the pivot p, and e the unit vector: A - (c - e) r' / p.

    In place, the column of the pivot becomes that of the inverse: A - (c - e) (r + e)' / p.
    """
    down = (torch.arange(table.shape[1]) == place).to(table.dtype).unsqueeze(-1)
    along = (torch.arange(table.shape[2]) == place).to(table.dtype)
    at = place.reshape(1)
    row, column = table.index_select(1, at), table.index_select(2, at)
    pivot = row.index_select(2, at)
    return table - (column - down) * ((row + along if in_place else row) / pivot)
