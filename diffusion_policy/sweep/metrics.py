"""Figures that say how good a training run was, from the scores of its rollouts, and their means over seeds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def get_indexed_window_average(arr: np.ndarray, idxs: np.ndarray, window_size: int) -> np.ndarray:
    """Mean of the `window_size` values around each index.

    Near an end the window is moved inwards; it is cut only where there are fewer values than that.

    Args:
        arr: `(N,)`, N >= 1.
        idxs: `(M,)` in [0, N).

    Returns:
        `(M,)`
    """
    width = min(window_size, len(arr))
    starts = np.clip(np.asarray(idxs) - window_size // 2, 0, len(arr) - width)
    return _window_averages(arr, width)[starts]


def compute_metrics(
    log_df: pd.DataFrame,
    key: str,
    end_step: float,
    k_min_loss: int = 10,
    k_around_max: int = 10,
    max_k_window: int = 10,
    replace_slash: bool = True,
    index_key: str = "global_step",
) -> dict[str, float]:
    """Figures of one run for one score.

    - `max`: the best; `k_around_max`: the mean of the `k_around_max` scores around it (of several equal ones, the mean)
    - `max_k_window`: the best mean of `max_k_window` scores in a row
    - `min_train_loss`, `min_val_loss`: the score where that loss was lowest; `k_min_train_loss`, `k_min_val_loss`: the
      mean score at the `k_min_loss` lowest losses. The loss of a score is the last logged by then.
    - `last`: the latest
    - `metric_global_step`: the step of the latest

    Where there are fewer scores than k, all of them count.

    Args:
        log_df: records of the run in the order of their steps; scores stand in some of them.
        key: of the score, such as `test/mean_score`.
        end_step: later records are left out.
        replace_slash: the names end in `test_mean_score` instead.
        index_key: column that counts the steps.

    Returns:
        By name (`max/test_mean_score`); empty if there is no score by then, and without figures of a loss that is not
        logged.
    """
    if key not in log_df:
        return {}
    log_df = log_df[log_df[index_key] <= end_step]
    losses = log_df.reindex(columns=["train_loss", "val_loss"]).ffill()
    scored = log_df[key].notna()
    scores = log_df.loc[scored, key].to_numpy(dtype=float)
    if len(scores) == 0:
        return {}
    best = np.flatnonzero(scores == scores.max())
    figures = {
        "max": scores.max(),
        "k_around_max": get_indexed_window_average(scores, best, k_around_max).mean(),
        "max_k_window": _window_averages(scores, min(max_k_window, len(scores))).max(),
    }
    for name in losses:
        loss = losses.loc[scored, name].to_numpy(dtype=float)
        ascending = np.argsort(loss, kind="stable")[: np.isfinite(loss).sum()]
        if len(ascending):
            figures[f"min_{name}"] = scores[ascending[0]]
            figures[f"k_min_{name}"] = scores[ascending[:k_min_loss]].mean()
    figures["last"] = scores[-1]
    figures["metric_global_step"] = log_df.loc[scored, "global_step"].iloc[-1]
    suffix = key.replace("/", "_") if replace_slash else key
    return {f"{name}/{suffix}": float(value) for name, value in figures.items()}


def compute_metrics_agg(
    log_dfs: Sequence[pd.DataFrame], key: str, end_step: float, **kwargs: object
) -> dict[str, float]:
    """Means over runs of what `compute_metrics` gives for each, over those runs that have a figure."""
    of_runs = [compute_metrics(log_df, key, end_step, **kwargs) for log_df in log_dfs]  # type: ignore[arg-type]
    names = dict.fromkeys(name for figures in of_runs for name in figures)
    return {name: float(np.mean([figures[name] for figures in of_runs if name in figures])) for name in names}


def _window_averages(arr: np.ndarray, width: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(arr, width).mean(axis=-1)
