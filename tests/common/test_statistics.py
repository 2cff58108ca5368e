import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_policy.common.statistics import (
    bootstrap_interval,
    seed_scores,
    summarize_scores,
    t_interval,
    wilson_interval,
)


def test_wilson_interval_equals_published_values() -> None:
    # Newcombe 1998, table I: 81/263, 15/148, 0/20 and 1/29 by the score method without continuity correction
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_wilson_interval_of_a_single_trial_is_wide() -> None:
    low, high = wilson_interval(1, 1)
    assert low == pytest.approx(0.2065, abs=5e-5)
    assert high == 1.0


def test_wilson_interval_narrows_with_less_confidence() -> None:
    wide, narrow = wilson_interval(7, 10, confidence=0.99), wilson_interval(7, 10, confidence=0.5)
    assert wide[0] < narrow[0] < 0.7 < narrow[1] < wide[1]


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_interval_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"successes={successes}, n={n}"):
        wilson_interval(successes, n)


def test_bootstrap_interval_matches_the_normal_approximation_for_many_values() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=1000)
    half_width = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    expected = (values.mean() - half_width, values.mean() + half_width)
    assert bootstrap_interval(values) == pytest.approx(expected, abs=0.01)


def test_bootstrap_interval_depends_on_values_and_seed_only() -> None:
    values = np.random.default_rng(0).random(20)
    np.random.seed(0)
    first = bootstrap_interval(values)
    np.random.seed(1)
    assert bootstrap_interval(iter(values)) == first
    assert bootstrap_interval(values, seed=1) != first


@pytest.mark.parametrize("values", [[0.7], [1.0, 1.0, 1.0]])
def test_bootstrap_interval_of_equal_values_is_that_value(values: list[float]) -> None:
    assert bootstrap_interval(values) == (values[0], values[0])


def test_bootstrap_interval_of_values_not_finite_is_unknown() -> None:
    assert all(math.isnan(bound) for bound in bootstrap_interval([1.0, math.nan, 0.5]))


def test_bootstrap_interval_refuses_no_values() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_interval([])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_bootstrap_interval_lies_between_the_extremes(values: list[float]) -> None:
    low, high = bootstrap_interval(values)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12


LOG = {
    "test/sim_max_reward_100001": 0.5,
    "test/sim_max_reward_100000": 1.0,
    "test/sim_video_100000": "media/a.mp4",
    "test/mean_score": 0.75,
    "train/sim_max_reward_0": 1.0,
    "train_loss": 0.1,
}


def test_seed_scores_are_grouped_by_prefix_and_ordered_by_seed() -> None:
    scores = seed_scores(LOG)
    assert scores == {"test": {100000: 1.0, 100001: 0.5}, "train": {0: 1.0}}
    assert list(scores["test"]) == [100000, 100001]


def test_summary_has_scores_and_successes_of_each_prefix() -> None:
    summary = summarize_scores(LOG)
    assert set(summary) == {"test", "train"}
    test = summary["test"]
    assert (test["n"], test["mean"], test["successes"], test["success_rate"]) == (2, 0.75, 1, 0.5)
    assert test["mean_interval"] == bootstrap_interval([1.0, 0.5])
    assert test["success_interval"] == wilson_interval(1, 2)
    assert summary["train"]["success_rate"] == 1.0


def test_summary_of_a_log_without_single_scores_is_empty() -> None:
    assert summarize_scores({"test/mean_score": 0.4, "test/p_1": 1.0}) == {}


def test_t_interval_of_a_handful_of_seeds() -> None:
    # mean 3, standard deviation 1 of three: t(0.975, 2) = 4.30265, over the square root of 3
    assert t_interval([2, 3, 4]) == pytest.approx((3 - 2.48414, 3 + 2.48414), abs=1e-5)
    assert t_interval([0.5, 0.5]) == (0.5, 0.5)


def test_t_interval_where_there_is_none() -> None:
    assert all(math.isnan(bound) for bound in (*t_interval([0.5]), *t_interval([0.5, math.nan])))
    with pytest.raises(ValueError, match="at least one value"):
        t_interval([])
