"""The report of a run: one HTML file that shows scores, curves and videos, and needs nothing beside it."""

import base64
import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
from omegaconf import OmegaConf

from diffusion_policy.common.atomic_file import atomic_path
from diffusion_policy.common.config import flatten
from diffusion_policy.common.report_charts import Curve, draw_charts
from diffusion_policy.common.report_page import render_page
from diffusion_policy.common.statistics import SUCCESS_REWARD, ScoreSummary, seed_scores, summarize_scores

logger = logging.getLogger(__name__)

MAX_VIDEOS = 16
MAX_VIDEO_BYTES = 20 * 2**20

_TEMPLATE = Path(__file__).with_name("report_template.html")
_SEED_VIDEO = re.compile(r"(?P<prefix>.+)/sim_video_(?P<seed>\d+)")
_RATE = "steps_per_second"
_CURVES = ("train_loss", "val_loss", "train_action_mse_error", "lr", _RATE)


@dataclass
class Run:
    """What a run folder holds, as far as the report shows it."""

    folder: Path
    curves: dict[str, Curve] = field(default_factory=dict)
    rollouts: dict[int, dict[str, float]] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)

    @property
    def result(self) -> dict[str, Any]:
        """What the last rollout returned, whether or not its videos are known."""
        return self.evaluation or (self.rollouts[max(self.rollouts)] if self.rollouts else {})


def write_report(output_dir: str | os.PathLike[str]) -> Path:
    """Writes ``report.html`` into a run folder, from nothing but the files in it, and returns its path.

    Args:
        output_dir: folder of a training run (``logs.json.txt``, ``.hydra/``) or of an evaluation
            (``eval_log.json``); what is absent or cut short is left out of the report.

    Raises:
        FileNotFoundError: if the folder holds neither log.
    """
    run = read_run(Path(output_dir))
    videos, n_omitted = _videos(run)
    html = render_page(
        _TEMPLATE,
        title=_title(run),
        overrides=run.overrides,
        figures=_headline_figures(run),
        charts=draw_charts(run.curves, run.rollouts),
        scores=_score_bars(run.result),
        videos=videos,
        n_omitted=n_omitted,
        metrics=_other_metrics(run.result),
        config=dict(flatten(run.config)),
    )
    path = run.folder / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


# Reading a run folder


def read_run(folder: Path) -> Run:
    """Reads what a run folder holds; a damaged file counts as absent, with a warning."""
    log, evaluation = folder / "logs.json.txt", folder / "eval_log.json"
    if not log.exists() and not evaluation.exists():
        raise FileNotFoundError(
            f"{folder} holds neither {log.name} nor {evaluation.name}: expected the output folder of "
            "train.py or eval.py"
        )
    run = Run(
        folder=folder,
        evaluation=_read(evaluation, json.load, {}),
        config=_read(folder / ".hydra" / "config.yaml", _load_yaml, {}),
        overrides=_read(folder / ".hydra" / "overrides.yaml", _load_yaml, []),
    )
    for record in _records(log):
        _add_record(run, record)
    return run


def _read(path: Path, load: Callable[[Any], Any], default: Any) -> Any:
    if not path.exists():
        return default
    try:
        with path.open(encoding="utf-8") as file:
            content = load(file)
    except Exception as error:  # JSON, YAML and OmegaConf each have their own; the report is worth more than one part
        logger.warning("the report leaves out %s, which cannot be read: %s", path, error)
        return default
    return content if isinstance(content, type(default)) else default


def _load_yaml(file: IO[str]) -> Any:
    return OmegaConf.to_container(OmegaConf.load(file), resolve=False)


def _records(path: Path) -> Iterator[dict[str, float]]:
    """Records of a JSON-lines log; a line cut short, as a killed run leaves it, is skipped."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield {key: value for key, value in record.items() if isinstance(value, int | float)}


def _add_record(run: Run, record: dict[str, float]) -> None:
    step = int(record.get("global_step", len(run.curves.get("train_loss", ()))))
    for key, value in record.items():
        if key in _CURVES or key.endswith("/mean_score"):
            run.curves.setdefault(key, {})[step] = value
    if any(key.endswith("/mean_score") for key in record):
        run.rollouts[step] = record
    run.last |= record


# The headline


def _title(run: Run) -> dict[str, str]:
    task, policy = run.config.get("task"), run.config.get("policy")
    name = task.get("name") if isinstance(task, Mapping) else run.config.get("task_name")
    target = policy.get("_target_", "") if isinstance(policy, Mapping) else ""
    return {
        "task": str(name or run.folder.resolve().name),
        "method": str(target).rpartition(".")[2],
        "experiment": str(run.config.get("name", "")),
    }


def _headline_figures(run: Run) -> list[dict[str, str]]:
    """Label, value and note of each number at the top of the page."""
    figures = [*_score_figures(run), *_training_figures(run)]
    return [{"label": label, "value": value, "note": note} for label, value, note in figures]


def _score_figures(run: Run) -> Iterator[tuple[str, str, str]]:
    final, prefix = run.result, _main_prefix(run.result)
    if prefix is None:
        return
    key, label = f"{prefix}/mean_score", f"{prefix} score"
    summary = summarize_scores(final).get(prefix)
    yield f"Final {label}" if run.rollouts else label.capitalize(), _number(final[key]), _score_note(summary)
    scored = {step: r[key] for step, r in run.rollouts.items() if math.isfinite(r.get(key, math.nan))}
    if len(scored) > 1:
        best = max(scored, key=lambda step: scored[step])
        record = run.rollouts[best]
        note = _score_note(summarize_scores(record).get(prefix))
        epoch = f"epoch {record['epoch']:g}" if "epoch" in record else f"step {best}"
        yield f"Best {label}", _number(scored[best]), f"{note} · {epoch}".removeprefix(" · ")
    if summary is not None:
        low, high = summary["success_interval"]
        note = f"95 % CI {low:.0%} to {high:.0%} · {summary['successes']} of {summary['n']}"
        yield "Success rate", f"{summary['success_rate']:.0%}", note


def _training_figures(run: Run) -> Iterator[tuple[str, str, str]]:
    if rates := run.curves.get(_RATE):
        note = f"{run.last['samples_per_second']:,.0f} samples/s" if "samples_per_second" in run.last else ""
        yield "Training time", _duration(_training_seconds(rates)), "without rollouts, validation"
        yield "Training speed", f"{np.median(list(rates.values())):,.1f} steps/s", note
    if "global_step" in run.last:
        epochs = f"{run.last['epoch'] + 1:,.0f} epochs" if "epoch" in run.last else ""
        yield "Training steps", f"{run.last['global_step'] + 1:,.0f}", epochs
    training = run.config.get("training")
    device = training.get("device") if isinstance(training, Mapping) else None
    if run.last.get("peak_memory_mb"):
        yield "Peak memory", f"{run.last['peak_memory_mb']:,.0f} MB", ""
    if device and device != "auto":
        yield "Device", str(device), ""


def _main_prefix(result: Mapping[str, Any]) -> str | None:
    """The prefix to put first: `test` where there is one."""
    prefixes = [key.removesuffix("/mean_score") for key in result if key.endswith("/mean_score")]
    return "test" if "test" in prefixes else next(iter(prefixes), None)


def _score_note(summary: ScoreSummary | None) -> str:
    if summary is None or summary["n"] < 2 or not math.isfinite(summary["mean"]):
        return ""
    return "95 % CI {:.2f} to {:.2f}".format(*summary["mean_interval"])


def _training_seconds(rates: Curve) -> float:
    """Time in the training loop, from the steps per second of each epoch."""
    steps = [-1, *sorted(rates)]
    return sum((step - before) / rates[step] for before, step in pairwise(steps) if rates[step] > 0)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "not finite"


# Scores, videos and the rest


def _score_bars(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each prefix its rollouts, best first, with the height of their bars in percent."""
    summaries, groups = summarize_scores(result), []
    for prefix, by_seed in seed_scores(result).items():
        top = max([SUCCESS_REWARD, *filter(math.isfinite, by_seed.values())])
        best_first = sorted(by_seed.items(), key=lambda item: (math.isnan(item[1]), -item[1]))
        groups.append(
            {
                "prefix": prefix,
                "n": summaries[prefix]["n"],
                "mean": _number(summaries[prefix]["mean"]),
                "successes": summaries[prefix]["successes"],
                "threshold": _percent(SUCCESS_REWARD / top),
                "rollouts": [
                    {
                        "seed": seed,
                        "score": _number(score),
                        "success": score >= SUCCESS_REWARD,
                        "height": _percent(score / top),
                    }
                    for seed, score in best_first
                ],
            }
        )
    return sorted(groups, key=lambda group: group["prefix"] != "test")


def _percent(fraction: float) -> str:
    return f"{100 * min(max(fraction, 0), 1):.1f}%" if math.isfinite(fraction) else "0%"


def _videos(run: Run) -> tuple[list[dict[str, Any]], int]:
    """The recordings to embed, of test rollouts first, and how many there is no room or no file for."""
    recordings = [
        (match["prefix"], int(match["seed"]), str(path))
        for key, path in run.evaluation.items()
        if (match := _SEED_VIDEO.fullmatch(key)) and path
    ]
    scores, budget = seed_scores(run.evaluation), MAX_VIDEO_BYTES
    videos: list[dict[str, Any]] = []
    for prefix, seed, path in sorted(recordings, key=lambda r: (r[0] != "test", r)):
        file = _find_video(run.folder, path)
        if file is None or file.stat().st_size > budget or len(videos) == MAX_VIDEOS:
            continue
        content = file.read_bytes()
        budget -= len(content)
        score = scores.get(prefix, {}).get(seed)
        videos.append(
            {
                "prefix": prefix,
                "seed": seed,
                "score": None if score is None else _number(score),
                "success": score is not None and score >= SUCCESS_REWARD,
                "data": base64.b64encode(content).decode("ascii"),
            }
        )
    return videos, len(recordings) - len(videos)


def _find_video(folder: Path, path: str) -> Path | None:
    """The file at ``path``, or of its name in ``media/`` if the run folder has been moved since."""
    candidates = (Path(path), folder / path, folder / "media" / Path(path).name)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _other_metrics(result: Mapping[str, Any]) -> dict[str, str]:
    """The runner's figures that are not of a single seed, such as ``test/p_4`` of the kitchen."""
    return {
        key: _number(value)
        for key, value in result.items()
        if "/" in key and isinstance(value, int | float) and "/sim_max_reward_" not in key
    }
