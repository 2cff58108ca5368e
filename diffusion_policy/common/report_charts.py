"""Charts of a run's report, as SVG that takes its colours and its font from the page around it."""

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from diffusion_policy.common.statistics import summarize_scores, t_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = dict[int, float]
"""Values of one quantity by training step."""

# matplotlib draws in these stand-ins; the page's style sheet gives them a colour in light and in dark.
_INK, _GRID, *_SERIES = "#010101", "#020202", "#030303", "#040404", "#050505"
_COLOR_VARIABLES = {_INK: "--muted", _GRID: "--line"} | {c: f"--series-{i}" for i, c in enumerate(_SERIES)}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _GRID,
    "xtick.labelcolor": _INK,
    "ytick.color": _GRID,
    "ytick.labelcolor": _INK,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
}
_SINGLE_CURVES = {
    "train_action_mse_error": "Action error on a training batch (mean squared)",
    "lr": "Learning rate",
}
_MAX_POINTS = 600
_MAX_MARKERS = 60


def draw_charts(curves: Mapping[str, Curve], rollouts: Mapping[int, Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    """Title and inline SVG of each chart that there are values for.

    Args:
        curves: by log key.
        rollouts: what the runner returned, by training step.
    """
    curves = {key: curve for key, curve in curves.items() if np.isfinite(list(curve.values())).any()}
    losses = {key: curves[key] for key in ("train_loss", "val_loss") if key in curves}
    scores = {key: curve for key, curve in curves.items() if key.endswith("/mean_score")}
    charts: list[tuple[str, Markup]] = []
    if scores:
        charts.append(("Mean score", _svg(_draw_scores, scores, rollouts)))
    if losses:
        charts.append(("Loss", _svg(_draw_losses, losses)))
    for key, title in _SINGLE_CURVES.items():
        if key in curves:
            charts.append((title, _svg(_draw_single, curves[key])))
    return charts


def draw_seed_scores(scores: Mapping[str, Sequence[Curve]]) -> Markup:
    """Inline SVG of the scores of several training seeds.

    Args:
        scores: by label the curve of each seed, finite: drawn thin, with their mean and its 95 % interval (Student's t)
            where all of them have a value.
    """
    return _svg(_draw_seed_scores, scores)


def draw_seed_losses(losses: Mapping[str, Sequence[Curve]]) -> Markup:
    """Inline SVG of the losses of several training seeds, drawn like their scores."""
    return _svg(_draw_seed_losses, losses)


def _draw_seed_scores(axes: "Axes", scores: Mapping[str, Sequence[Curve]]) -> None:
    _draw_seeds(axes, scores)
    _show_unit_interval(axes)


def _draw_seed_losses(axes: "Axes", losses: Mapping[str, Sequence[Curve]]) -> None:
    _draw_seeds(axes, losses)
    curves = list(chain(*losses.values()))
    _use_log_scale(axes, curves)
    if axes.get_yscale() == "log":  # on which an interval may go down to nothing
        axes.set_ylim(bottom=0.9 * min(min(curve.values()) for curve in curves))


def _draw_seeds(axes: "Axes", quantities: Mapping[str, Sequence[Curve]]) -> None:
    for color, (label, curves) in zip(cycle(_SERIES), quantities.items(), strict=False):
        for curve in curves:
            _plot(axes, curve, color, alpha=0.35, linewidth=0.8, marker=None)
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        values = {step: [curve[step] for curve in curves] for step in steps}
        if values:
            _plot(axes, {step: float(np.mean(at_step)) for step, at_step in values.items()}, color, label)
            low, high = zip(*(t_interval(at_step) for at_step in values.values()), strict=True)
            axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)


def _draw_scores(axes: "Axes", scores: Mapping[str, Curve], rollouts: Mapping[int, Mapping[str, Any]]) -> None:
    summaries = {step: summarize_scores(rollouts[step]) for step in sorted(rollouts)}
    for color, key in zip(_SERIES, sorted(scores), strict=False):
        prefix = key.removesuffix("/mean_score")
        _plot(axes, scores[key], color, prefix)
        band = [(step, *s[prefix]["mean_interval"]) for step, s in summaries.items() if prefix in s]
        if len(band) > 1:
            steps, low, high = zip(*band, strict=True)
            axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    _show_unit_interval(axes)


def _show_unit_interval(axes: "Axes") -> None:
    """All there is, and 0 to 1 at least."""
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]), top=max(1, axes.get_ylim()[1]))


def _draw_losses(axes: "Axes", losses: Mapping[str, Curve]) -> None:
    for color, (key, curve) in zip(_SERIES, losses.items(), strict=False):
        label = "training" if key == "train_loss" else "validation"
        if len(curve) > 2 * _MAX_MARKERS:
            _plot(axes, curve, color, alpha=0.25, linewidth=0.7)
            _plot(axes, _smooth(curve), color, label)
        else:
            _plot(axes, curve, color, label)
    _use_log_scale(axes, losses.values())


def _draw_single(axes: "Axes", curve: Curve) -> None:
    _plot(axes, curve, _SERIES[0])
    if min(curve.values()) >= 0:
        axes.set_ylim(bottom=0)


def _plot(axes: "Axes", curve: Curve, color: str, label: str | None = None, **style: Any) -> None:
    steps = np.array(sorted(curve))
    chosen = steps[np.unique(np.linspace(0, len(steps) - 1, _MAX_POINTS).astype(int))]
    values = [curve[step] if np.isfinite(curve[step]) else np.nan for step in chosen]
    marker = "o" if len(chosen) <= _MAX_MARKERS else None
    axes.plot(chosen, values, color=color, label=label, **{"marker": marker, **style})


def _smooth(curve: Curve) -> Curve:
    """Running mean over a fiftieth of the curve."""
    from scipy.ndimage import uniform_filter1d  # slow to import

    steps = [step for step in sorted(curve) if np.isfinite(curve[step])]
    values = np.array([curve[step] for step in steps])
    smooth = uniform_filter1d(values, size=max(len(values) // 50, 1), mode="nearest")
    return dict(zip(steps, smooth.tolist(), strict=True))


def _use_log_scale(axes: "Axes", curves: Iterable[Curve]) -> None:
    values = np.array([value for curve in curves for value in curve.values() if np.isfinite(value)])
    if values.min() > 0 and values.max() > 10 * values.min():
        from matplotlib.ticker import LogLocator, NullLocator

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())


def _svg(draw: Callable[..., None], *values: Any) -> Markup:
    """What ``draw(axes, *values)`` draws, as an SVG element to stand inside a page."""
    import matplotlib as mpl  # slow to import
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.2, 3.1))
        axes = figure.add_axes((0.115, 0.16, 0.87, 0.74))  # a layout that is computed draws all of it twice
        draw(axes, *values)
        axes.set_xlabel("training step")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_formatter("{x:g}")
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0, handlelength=1.2)
        file = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    return Markup(_for_page(file.getvalue()))


def _for_page(svg: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # several charts share a page, where an id may occur once
    for color, variable in _COLOR_VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    return svg
