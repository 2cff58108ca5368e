import numpy as np
import pandas as pd
import pytest

from diffusion_policy.sweep.metrics import compute_metrics, compute_metrics_agg, get_indexed_window_average

KEY = "test/mean_score"


def log(scores, train_loss=(), val_loss=()):
    """A run that is scored every tenth step."""
    columns = {KEY: scores, "train_loss": train_loss, "val_loss": val_loss}
    frame = pd.DataFrame({key: values for key, values in columns.items() if len(values)})
    return frame.assign(global_step=range(9, 10 * len(scores), 10), epoch=range(len(scores)))


def test_window_average():
    arr = np.arange(10.0)
    # 0 1 2 3; 3 4 5 6; 6 7 8 9: windows of four, moved inwards at the ends
    assert get_indexed_window_average(arr, np.array([0, 5, 9]), 4).tolist() == [1.5, 4.5, 7.5]
    assert get_indexed_window_average(arr, np.array([3]), 1).tolist() == [3]
    assert get_indexed_window_average(arr[:3], np.array([0, 2]), 10).tolist() == [1, 1]


def test_figures_of_a_run():
    run = log([0.1, 0.5, 0.3, 0.9, 0.2, 0.4], train_loss=[6, 5, 4, 3, 2, 1], val_loss=[3, 1, 2, 4, 5, 6])
    figures = compute_metrics(run, KEY, end_step=59, k_min_loss=2, k_around_max=3, max_k_window=2)
    assert figures == pytest.approx(
        {
            "max/test_mean_score": 0.9,
            "k_around_max/test_mean_score": (0.3 + 0.9 + 0.2) / 3,
            "max_k_window/test_mean_score": (0.3 + 0.9) / 2,
            "min_train_loss/test_mean_score": 0.4,
            "k_min_train_loss/test_mean_score": (0.4 + 0.2) / 2,
            "min_val_loss/test_mean_score": 0.5,
            "k_min_val_loss/test_mean_score": (0.5 + 0.3) / 2,
            "last/test_mean_score": 0.4,
            "metric_global_step/test_mean_score": 59,
        }
    )


def test_later_records_do_not_count():
    run = log([0.1, 0.5, 0.3, 0.9], train_loss=[4, 3, 2, 1])
    figures = compute_metrics(run, KEY, end_step=29, replace_slash=False)
    assert figures["max/test/mean_score"] == 0.5
    assert figures["last/test/mean_score"] == 0.3
    assert figures["k_min_train_loss/test/mean_score"] == pytest.approx(0.3)  # of all three: there are no ten
    assert figures["metric_global_step/test/mean_score"] == 29
    assert not any("val_loss" in name for name in figures)
    assert compute_metrics(run, KEY, end_step=8) == {}
    assert compute_metrics(run, "test/other", end_step=29) == {}


def test_several_equal_maxima_count_alike():
    figures = compute_metrics(log([1.0, 0.0, 0.5, 0.5, 1.0]), KEY, end_step=100, k_around_max=2)
    assert figures["k_around_max/test_mean_score"] == pytest.approx((0.5 + 0.75) / 2)


def test_loss_is_the_last_logged_when_a_run_is_scored():
    """Validation need not be in the epochs of rollouts, and a loss that diverged is not the lowest."""
    frame = pd.DataFrame(
        {
            "global_step": [1, 2, 3, 4, 5],
            KEY: [np.nan, 0.2, np.nan, 0.7, 0.4],
            "val_loss": [0.3, np.nan, 0.1, np.nan, 0.9],
            "train_loss": [3.0, 2.0, 1.0, np.nan, 5.0],
        }
    )
    figures = compute_metrics(frame, KEY, end_step=5)
    assert figures["min_val_loss/test_mean_score"] == 0.7
    assert figures["min_train_loss/test_mean_score"] == 0.7
    frame["train_loss"] = [np.nan, np.nan, np.inf, np.inf, 5.0]
    assert compute_metrics(frame, KEY, end_step=5)["min_train_loss/test_mean_score"] == 0.4


def test_steps_may_be_epochs():
    figures = compute_metrics(log([0.1, 0.5, 0.3]), KEY, end_step=1, index_key="epoch")
    assert figures["last/test_mean_score"] == 0.5
    assert figures["metric_global_step/test_mean_score"] == 19


def test_aggregate_is_the_mean_over_runs_that_have_a_figure():
    runs = [log([0.2, 0.4]), log([0.6, 0.9], val_loss=[1, 2]), pd.DataFrame({"global_step": [9]})]
    figures = compute_metrics_agg(runs, KEY, end_step=19)
    assert figures["max/test_mean_score"] == pytest.approx((0.4 + 0.9) / 2)
    assert figures["min_val_loss/test_mean_score"] == 0.6
    assert compute_metrics_agg([], KEY, end_step=19) == {}
