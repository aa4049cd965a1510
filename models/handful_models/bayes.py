"""A Bayesian linear head.

Harrison, Sharma, Pavone, "Meta-Learning Priors for Efficient Online Bayesian Regression" (ALPaCA, 2018), after
Minka, "Bayesian linear regression" (2000). With features x = (Pf(x), 1), a prior W ~ MN(K0, Λ0^-1, σ²I) whose K0, Λ0,
σ² and P are learned across tasks, and labels Y (one-hot for classes):

    Λ = Λ0 + X'X,    K = Λ^-1 (Λ0 K0 + X'Y),    y | x ~ N(x'K, σ² (1 + x'Λ^-1 x))

Λ0 is diagonal: P is free, so a full one would say nothing more. A class's logit is the posterior mean under the
moderation of MacKay (1992): what the covariance leaves open brings the answer nearer to undecided,

    logit_k(x) = α (x'K)_k / sqrt(1 + β x'Λ^-1 x),    α and β learned

Sums and inverses are float64 inside: features of nearby inputs are nearly the same, so Λ is badly conditioned, and in
float32 an answer would depend on the order of the examples.
"""

from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .head import Head, masked, standard
from .learner import AdditiveLearner, Options, Target, Tensors
from .solve import invert_positive
from .ways import as_member, open_ways

LEAST_PRECISION = 0.05
LEAST_VARIANCE = 1.0e-6


class BayesOptions(Options):
    """The settings of the Bayesian head."""

    dims: int = Field(64, ge=1, le=64, description="Features of the regression; a state holds a square of them.")


class Bayes(Head, AdditiveLearner):
    """State: `mean [d, k]`, `covariance [d, d]` = Λ^-1, d = dims + 1, k = ways or 1; with classes `present [ways]`.

    For open labels K0 is one column for all ways, so no way is preferred; for fixed labels each way has its own, and
    the prior is the base model.
    """

    options: ClassVar[type[Options]] = BayesOptions
    targets = ("class", "number")

    def __init__(self, encoder: nn.Module, *, ways: int, target: Target, fixed: bool, dims: int) -> None:
        super().__init__(encoder, ways=ways, target=target, fixed=fixed)
        self.project = nn.Linear(self.width, dims, bias=False)
        with torch.no_grad():  # features as they are, but for what keeps members of an ensemble apart
            self.project.weight.mul_(0.2).add_(torch.eye(dims, self.width))
        self.raw_precision = nn.Parameter(torch.full((dims + 1,), -1.0))
        self.prior_mean = nn.Parameter(torch.zeros(dims + 1, self.ways if self.fixed else 1))
        if self.target == "number":
            self.raw_noise = nn.Parameter(torch.tensor(-1.0))
        else:
            self.log_scale = nn.Parameter(torch.tensor(3.0))
            self.log_moderation = nn.Parameter(torch.tensor(0.0))

    @classmethod
    def make(
        cls, encoder: nn.Module, *, ways: int, examples: int, target: Target, fixed: bool, options: BayesOptions
    ) -> Self:
        """See `Learner`."""
        return cls(encoder, ways=ways, target=target, fixed=fixed, dims=options.dims)

    def regressors(self, features: Tensors) -> Tensor:
        """Inputs `[..., d]` of the regression: features of unit norm, projected, and a constant 1."""
        unit = standard(features["features"]) * self.width**-0.5
        return F.pad(self.project(unit), (0, 1), value=1.0)

    def summarise(self, features: Tensors, y: Tensor, weight: Tensor) -> Tensors:
        """`gram [task, d, d]` = X'X, `moment [task, d, k]` = X'Y; with classes `counts [task, ways]`."""
        x = masked(self.regressors(features), weight).double()
        labels = self.label_vectors(y, weight)
        gram, moment = x.transpose(1, 2) @ x, x.transpose(1, 2) @ labels.double()
        statistics = {"gram": gram.float(), "moment": moment.float()}
        return statistics if self.target == "number" else {**statistics, "counts": labels.sum(1)}

    def adapt(self, statistics: Tensors) -> Tensors:
        """See the class."""
        precision = (LEAST_PRECISION + F.softplus(self.raw_precision)).double()
        covariance = invert_positive(statistics["gram"].double(), precision)
        mean = covariance @ (statistics["moment"].double() + precision.unsqueeze(-1) * self.prior_mean)
        state = {"mean": mean.float(), "covariance": covariance.float()}
        if self.target == "number":
            return state
        return {**state, "present": open_ways(statistics["counts"], fixed=self.fixed)}

    def predict(self, features: Tensors, state: Tensors) -> Tensor:
        """See `Learner`; one member."""
        x = self.regressors(features)
        values = (x.unsqueeze(-2) @ state["mean"]).squeeze(-2)
        spread = ((x.unsqueeze(-2) @ state["covariance"]).squeeze(-2) * x).sum(-1, keepdim=True).clamp_min(0)
        if self.target == "number":
            noise = LEAST_VARIANCE + F.softplus(self.raw_noise).square()
            return self.gaussian(values, noise * (1 + spread))
        moderated = self.log_scale.exp() * values / torch.sqrt(1 + self.log_moderation.exp() * spread)
        return as_member(moderated, state["present"])
