"""The result of a sweep to be read: a table for the terminal, and a page."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from omegaconf import OmegaConf

from diffusion_policy.common.atomic_file import atomic_path
from diffusion_policy.common.config import flatten
from diffusion_policy.common.report_charts import Curve, draw_seed_losses, draw_seed_scores
from diffusion_policy.common.report_page import render_page
from diffusion_policy.sweep.aggregate import Aggregate

_TEMPLATE = Path(__file__).with_name("sweep_report.html")
_LOSSES = {"train_loss": "training", "val_loss": "validation"}


def result_table(result: Aggregate, labels: Mapping[str, str]) -> str:
    """The figures as text: their mean over the runs with its 95 % interval, then each run's.

    Args:
        labels: of all runs by name, also of those that are not in the result.
    """
    rows = _rows(result, labels)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", *_notes(result, labels)])


def write_sweep_report(
    path: Path,
    folder: Path,
    result: Aggregate,
    labels: Mapping[str, str],
    frames: Mapping[str, pd.DataFrame],
    keys: Sequence[str],
) -> None:
    """Writes the page.

    Args:
        folder: of the sweep.
        labels: of all runs by name, also of those that are not in the result.
        frames: by run, the records that the result is of.
        keys: scores to draw.
    """
    config = _config(folder)
    used = [frames[run] for run in result.of_runs]
    header, *rows = _rows(result, labels)
    html = render_page(
        _TEMPLATE,
        name=str(config.get("name") or folder.resolve().name),
        task=str(config.get("task_name") or ""),
        figures=[_headline(result, name) for name in result.last if name.startswith(("max/", "last/"))],
        charts=list(_charts(used, keys)),
        header=header,
        rows=rows,
        notes=_notes(result, labels),
        config=dict(flatten(config)),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    config: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False) if path.exists() else {}
    return config


def _rows(result: Aggregate, labels: Mapping[str, str]) -> list[list[str]]:
    names = [name for name in result.last if "/" in name and not name.startswith("metric_global_step/")]
    cells = [[_number(figures.get(name, math.nan)) for figures in result.of_runs.values()] for name in names]
    means = [_mean(result, name) for name in names]
    header = ["", "mean ± 95 %", *(labels[run] for run in result.of_runs)]
    return [header, *([name, mean, *of_runs] for name, mean, of_runs in zip(names, means, cells, strict=True))]


def _mean(result: Aggregate, name: str) -> str:
    half_width = result.half_width(name)
    return _number(result.last[name]) + (f" ± {half_width:.3f}" if math.isfinite(half_width) else "")


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def _notes(result: Aggregate, labels: Mapping[str, str]) -> list[str]:
    step = int(result.last["global_step"])
    n_runs = len(result.of_runs)
    notes = [f"Scores up to step {step} of {n_runs} run{'s' * (n_runs != 1)}; intervals are Student's t over runs."]
    longer = [f"{labels[run]} is at {end}" for run, end in result.ends.items() if end > step]
    if longer:
        notes.append(f"Compared where all of them have come to: {', '.join(longer)}.")
    left_out = [label for run, label in labels.items() if run not in result.of_runs]
    if left_out:
        notes.append(f"Left out, failed or without a score yet: {', '.join(left_out)}.")
    return notes


def _headline(result: Aggregate, name: str) -> dict[str, str]:
    figure, _, score = name.partition("/")
    values = result.values(name)
    note = f"{min(values):.3f} to {max(values):.3f} over {len(values)} runs"
    return {"label": f"{'Best' if figure == 'max' else 'Last'} {score}", "value": _mean(result, name), "note": note}


def _charts(frames: Sequence[pd.DataFrame], keys: Sequence[str]) -> Iterator[tuple[str, Markup]]:
    if scores := {key: curves for key in keys if (curves := _curves(frames, key))}:
        yield "Score", draw_seed_scores(scores)
    if losses := {label: curves for key, label in _LOSSES.items() if (curves := _curves(frames, key))}:
        yield "Loss", draw_seed_losses(losses)


def _curves(frames: Sequence[pd.DataFrame], key: str) -> list[Curve]:
    """The finite values of a quantity by step, of each run that logged any."""
    logged = [frame.set_index("global_step")[key] for frame in frames if key in frame]
    curves = [{int(step): float(value) for step, value in curve.items() if math.isfinite(value)} for curve in logged]
    return [curve for curve in curves if curve]
