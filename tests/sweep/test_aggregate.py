import numpy as np
import pandas as pd
import pytest

from diffusion_policy.sweep.aggregate import MAX_RECORDS, aggregate
from diffusion_policy.sweep.sweep_report import result_table

KEY = "test/mean_score"


def frame(scores, every=10):
    steps = np.arange(1, len(scores) + 1) * every - 1
    return pd.DataFrame({"global_step": steps, "epoch": steps // every, KEY: scores, "train_loss": 1 / (1 + steps)})


def test_mean_over_seeds_with_student_s_interval():
    scores = {"train_0": [0.1, 0.70], "train_1": [0.2, 0.80], "train_2": [0.3, 0.84]}
    result = aggregate({run: frame(values) for run, values in scores.items()}, [KEY], "global_step", True)
    assert [record["global_step"] for record in result.records] == [9, 19]
    assert [record["epoch"] for record in result.records] == [0, 1]
    assert [record["last/test_mean_score"] for record in result.records] == pytest.approx([0.2, 0.78])
    # standard deviation 0.0721 of three, t(0.975, 2) = 4.3027
    assert result.half_width("last/test_mean_score") == pytest.approx(4.3027 * 0.072111 / 3**0.5, rel=1e-4)
    table = result_table(result, {run: run for run in scores})
    assert "last/test_mean_score" in table
    assert "0.780 ± 0.179" in table
    assert "Scores up to step 19 of 3 runs" in table


def test_runs_are_compared_where_all_have_come_to():
    frames = {"long": frame([0.1, 0.9, 1.0]), "short": frame([0.3, 0.5]), "not_yet": pd.DataFrame()}
    result = aggregate(frames, [KEY], "global_step", True)
    assert result.last["global_step"] == 19
    assert result.last["max/test_mean_score"] == pytest.approx(0.7)
    assert result.of_runs["long"]["max/test_mean_score"] == 0.9
    table = result_table(result, {run: run for run in frames})
    assert "long is at 29" in table
    assert "without a score yet: not_yet" in table


def test_runs_scored_at_different_steps():
    result = aggregate({"a": frame([0.2, 0.4, 0.6, 0.8]), "b": frame([0.5, 0.7], every=15)}, [KEY], "global_step", True)
    assert [record["global_step"] for record in result.records] == [14, 19, 29]
    assert [record["last/test_mean_score"] for record in result.records] == pytest.approx([0.35, 0.45, 0.65])


def test_a_single_run_has_no_interval():
    result = aggregate({"train_0": frame([0.25])}, [KEY], "global_step", True)
    assert np.isnan(result.half_width("max/test_mean_score"))
    row = next(line for line in result_table(result, {"train_0": "train_0"}).splitlines() if line.startswith("max/"))
    assert row.split() == ["max/test_mean_score", "0.250", "0.250"]


def test_nothing_in_common():
    assert aggregate({}, [KEY], "global_step", True) is None
    assert aggregate({"a": pd.DataFrame({"global_step": [1], "val_loss": [1]})}, [KEY], "global_step", True) is None
    late = frame([0.5]).assign(global_step=100)
    assert aggregate({"a": frame([0.5, 0.6]), "b": late}, [KEY], "global_step", True) is None


def test_many_steps_are_thinned_out():
    result = aggregate({"a": frame(np.linspace(0, 1, 3 * MAX_RECORDS), every=1)}, [KEY], "global_step", True)
    assert len(result.records) == MAX_RECORDS
    assert result.last["last/test_mean_score"] == 1.0
