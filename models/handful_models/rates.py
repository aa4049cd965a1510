"""The learning rate over a run, and a test of which rates a model bears."""

import math

from .config import OptimizerConfig


def rate_factor(step: int, settings: OptimizerConfig) -> float:
    """The learning rate at a step (from 0) as a fraction of `rate`: a linear warm-up, then the schedule.

    A cosine may begin once more, lower (Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts",
    2017).
    """
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.schedule == "cosine" and settings.restart_at is not None and step >= settings.restart_at:
        done = min(1.0, (step - settings.restart_at) / max(1, settings.steps - settings.restart_at))
        return settings.restart_factor * 0.5 * (1 + math.cos(math.pi * done))
    end = settings.steps if settings.restart_at is None else settings.restart_at
    done = min(1.0, (step - settings.warmup_steps) / max(1, end - settings.warmup_steps))
    if settings.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if settings.schedule == "linear":
        return 1 - done
    if settings.schedule == "step":
        return float(settings.step_factor ** (step // settings.step_every))
    return 1.0


def suggested_rate(rates: list[float], losses: list[float]) -> float:
    """A tenth of the rate from which on the smoothed loss rises (Smith, "Cyclical Learning Rates", 2017).

    Args:
        rates: Rising.
        losses: At each rate; a loss that is not finite ends the test.
    """
    smooth, best, at = math.nan, math.inf, rates[0]
    for rate, loss in zip(rates, losses, strict=True):
        if not math.isfinite(loss):
            break
        smooth = loss if math.isnan(smooth) else 0.8 * smooth + 0.2 * loss
        if smooth < best:
            best, at = smooth, rate
    return at / 10
