"""What a venue and a year say of a paper's length: the level and spread of the nearest known years of the venue.

A local level (Durbin, Koopman, "Time Series Analysis by State Space Methods", 2012, ch. 2): what comes next is where it
was last, give or take a step; no known year of the venue leaves the mean of all.
"""

import torch
from torch import Tensor, nn

from .errors import ConfigInvalid
from .head import FAR_BELOW

LEAST_SPREAD = 0.25
"""Pages: venues that print almost one length would make every surprise infinite."""


class VenueYears(nn.Module):
    """The table of known venue-years, and what it says of any.

    Attributes:
        table: float32 `[known, 5]`: venue, year, mean, deviation and count of numbers; buffer, from `fit`.
        step: Variance that a year's distance adds to the level, in squared deviations; buffer, from `fit`.
    """

    table: Tensor
    step: Tensor

    def __init__(self, known: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(known, 5))
        self.register_buffer("step", torch.tensor(1.0))

    @torch.no_grad()
    def fit(self, metadata: Tensor, y: Tensor) -> None:
        """Fill the table from numbers `y [n]`, NaN where missing, of `metadata [n, 2]`.

        Rows that are left over belong to no venue.

        Raises:
            ConfigInvalid: there are too few rows.
        """
        kinds, place = torch.unique(metadata, dim=0, return_inverse=True)
        if len(kinds) > len(self.table):
            raise ConfigInvalid(f"learner.options.venue_years: {len(kinds)} in the data, got {len(self.table)}")
        self.table.zero_()
        self.table[:, 0] = -1
        for number, kind in enumerate(kinds):
            self.table[number, :2] = kind
            here = y[(place == number) & ~y.isnan()]
            if len(here):
                spread = max(float(here.std(correction=0)), LEAST_SPREAD)
                self.table[number, 2:] = torch.tensor([float(here.mean()), spread, float(len(here))])
        self.step.fill_(self._usual_step())

    def _usual_step(self) -> float:
        """The median squared step between known years in a row, over what chance gives a normal variable."""
        known = self.table[self.table[:, 4] > 0]
        steps = []
        for venue in sorted(set(known[:, 0].tolist())):
            rows = known[known[:, 0] == venue]
            rows = rows[rows[:, 1].argsort()]
            moved = (rows[1:, 2] - rows[:-1, 2]) / rows[:-1, 3]
            steps += (moved.square() / (rows[1:, 1] - rows[:-1, 1])).tolist()
        return float(torch.tensor(steps).median() / 0.4549) if steps else 1.0

    def nearest(self, metadata: Tensor, known: Tensor) -> Tensor:
        """The shares `[batch, known]` of the known years of each venue that are nearest; 0 where there is none.

        A later year counts as if it were further off, so of two years as near the earlier wins.

        Args:
            metadata: float32 `[batch, 2]`: venue and year.
            known: bool `[known]`: which rows of the table may be used.
        """
        ahead = self.table[:, 1] - metadata[:, 1:]
        gap = torch.where(ahead > 0, ahead + 0.5, -ahead)
        usable = known & (self.table[:, 0] == metadata[:, :1])
        score = torch.where(usable, -gap, torch.full_like(gap, FAR_BELOW))
        found = ((score.amax(1, keepdim=True) == score) & usable).float()
        return found / found.sum(1, keepdim=True).clamp_min(1)

    def forward(self, metadata: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Level and spread of numbers, and the level's variance in squared spreads: `[batch]` each."""
        mean, deviation, count = self.table[:, 2], self.table[:, 3], self.table[:, 4]
        known = count > 0
        share = self.nearest(metadata, known)
        any_known = share.sum(1, keepdim=True)
        everywhere = known.float() / known.sum().clamp_min(1)
        share = share + (1 - any_known) * everywhere
        level, unit = share @ mean, (share @ deviation).clamp_min(LEAST_SPREAD)
        distance = (self.table[:, 1] - metadata[:, 1:]).abs()
        described = (share * (self.step * distance + 1 / count.clamp_min(1))).sum(1)
        between = (everywhere * (mean - level.unsqueeze(1)).square()).sum(1) / unit.square()
        return level, unit, torch.where(any_known[:, 0] > 0, described, between)
