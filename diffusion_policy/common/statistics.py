"""How sure a score is: confidence intervals of means and of success rates over rollouts or training seeds."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

import numpy as np

SUCCESS_REWARD = 1.0
"""A rollout succeeds when its highest reward reaches this; the simulators scale rewards to [0, 1]."""

_SEED_SCORE = re.compile(r"(?P<prefix>.+)/sim_max_reward_(?P<seed>\d+)")

Interval = tuple[float, float]


class ScoreSummary(TypedDict):
    """Scores of the rollouts that share a prefix, with 95 % intervals."""

    n: int
    mean: float
    mean_interval: Interval
    successes: int
    success_rate: float
    success_interval: Interval


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a success rate (Wilson 1927): sound for few trials and for rates near 0 or 1.

    Raises:
        ValueError: unless ``0 <= successes <= n`` and ``n >= 1``.
    """
    from scipy.stats import binomtest  # slow to import

    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n and n >= 1, got successes={successes}, n={n}")
    interval = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(values: Iterable[float], confidence: float = 0.95, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of the mean; the same values and seed give the same interval.

    Equal values, a single one among them, resample to themselves only: the interval is that point. It is
    ``(nan, nan)`` when a value is not finite.

    Raises:
        ValueError: if ``values`` is empty.
    """
    from scipy.stats import bootstrap  # slow to import

    sample = np.fromiter(values, dtype=np.float64)
    if sample.size == 0:
        raise ValueError("expected at least one value to bootstrap, got none")
    if not np.isfinite(sample).all():
        return np.nan, np.nan
    if np.ptp(sample) == 0:
        return float(sample[0]), float(sample[0])
    result = bootstrap((sample,), np.mean, confidence_level=confidence, method="percentile", batch=1000, rng=seed)
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def t_interval(values: Iterable[float], confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean, for a handful of values such as one a training seed.

    It is ``(nan, nan)`` for a single value, which says nothing about how much they vary, and when one is not finite.

    Raises:
        ValueError: if ``values`` is empty.
    """
    from scipy.special import stdtrit  # slow to import

    sample = np.fromiter(values, dtype=np.float64)
    if sample.size == 0:
        raise ValueError("expected at least one value, got none")
    if sample.size == 1 or not np.isfinite(sample).all():
        return np.nan, np.nan
    half_width = stdtrit(sample.size - 1, (1 + confidence) / 2) * sample.std(ddof=1) / np.sqrt(sample.size)
    return float(sample.mean() - half_width), float(sample.mean() + half_width)


def seed_scores(log: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """Highest reward of each rollout in what a runner returned: ``{prefix: {seed: score}}``, seeds ascending.

    ``log`` holds keys such as ``test/sim_max_reward_100000``; every other key is ignored.
    """
    scores: dict[str, dict[int, float]] = {}
    for key, value in log.items():
        if match := _SEED_SCORE.fullmatch(key):
            scores.setdefault(match["prefix"], {})[int(match["seed"])] = float(value)
    return {prefix: dict(sorted(by_seed.items())) for prefix, by_seed in scores.items()}


def summarize_scores(log: Mapping[str, Any]) -> dict[str, ScoreSummary]:
    """Mean score and success rate of each prefix (``train``, ``test``, ...) in what a runner returned."""
    return {prefix: _summarize(list(by_seed.values())) for prefix, by_seed in seed_scores(log).items()}


def _summarize(scores: list[float]) -> ScoreSummary:
    successes = sum(score >= SUCCESS_REWARD for score in scores)
    return {
        "n": len(scores),
        "mean": float(np.mean(scores)),
        "mean_interval": bootstrap_interval(scores),
        "successes": successes,
        "success_rate": successes / len(scores),
        "success_interval": wilson_interval(successes, len(scores)),
    }
