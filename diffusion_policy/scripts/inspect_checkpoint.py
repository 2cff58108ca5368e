"""Says what is in a checkpoint without building its policy."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from torch import Tensor

from diffusion_policy.common.checkpoint_file import read_checkpoint
from diffusion_policy.policy.policy_loading import evaluated_weights, read_config
from diffusion_policy.scripts.trust_option import trust_option

_SCORE_IN_NAME = re.compile(r"(?P<metric>[A-Za-z]\w*)=(?P<value>-?\d+(\.\d+)?)(?=\.ckpt$|-|$)")
_FIELD = re.compile(r"(?:^|\.)normalizer\.params_dict\.(?P<field>.+)\.(?P<part>scale|offset|input_stats\.\w+)$")
_SIZES = ("obs_dim", "action_dim", "keypoint_dim", "horizon", "n_obs_steps", "n_action_steps", "n_latency_steps")
_MOST_SHOWN = 8


def describe_checkpoint(path: str | os.PathLike[str], trust: bool = False) -> str:
    """What a checkpoint holds, as text of several lines.

    Raises:
        FileNotFoundError, CheckpointError, ConfigError: it cannot be read.
    """
    payload = read_checkpoint(path, trust=trust)
    cfg = read_config(payload, trust)
    name = evaluated_weights(payload)
    rows = [
        ("file", f"{path} ({os.path.getsize(path) / 1e6:.1f} MB, format {payload['format']})"),
        ("method", f"{cfg.get('name', '?')} ({cfg['policy'].get('_target_', '?')})"),
        ("task", str(_entry(cfg, "task_name") or _entry(cfg, "task", "name") or "?")),
        *((key, str(cfg[key])) for key in _SIZES if cfg.get(key) is not None),
        *_shapes(cfg),
        *((key, str(payload.get("values", {}).get(key, "?"))) for key in ("epoch", "global_step")),
        ("score", _score(Path(path).name, payload)),
        ("weights", _weights(payload["state_dicts"], name)),
    ]
    lines = [f"{label:<15} {text}" for label, text in rows]
    return "\n".join([*lines, "", *_normalizer(payload["state_dicts"].get(name, {}))])


def _entry(cfg: Any, *keys: str) -> Any:
    for key in keys:
        cfg = cfg.get(key) if isinstance(cfg, Mapping) else None
    return cfg


def _shapes(cfg: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    shape_meta = cfg.get("shape_meta") or _entry(cfg, "task", "shape_meta")
    for key, attributes in (_entry(shape_meta, "obs") or {}).items():
        yield f"obs {key}", f"{_entry(attributes, 'shape')} {_entry(attributes, 'type') or 'low_dim'}"
    if _entry(shape_meta, "action", "shape"):
        yield "action", str(_entry(shape_meta, "action", "shape"))


def _score(name: str, payload: Mapping[str, Any]) -> str:
    """The metric that the file is called after, or what the run remembered of it and its best others."""
    named = [found for found in _SCORE_IN_NAME.finditer(name) if found["metric"] != "epoch"]
    if named:
        return ", ".join(f"{found['metric']} {found['value']}" for found in named)
    kept = payload["state_dicts"].get("topk", payload.get("topk"))
    scores = {key: value for key, value in (kept or {}).items() if isinstance(value, float | int)}
    if scores:
        return "best of the run: " + ", ".join(f"{value:.3f} ({key})" for key, value in scores.items())
    return "none in the file name"


def _weights(state_dicts: Mapping[str, Any], evaluated: str) -> str:
    state = state_dicts.get(evaluated, {})
    own = {id(value): value for key, value in state.items() if isinstance(value, Tensor) and "normalizer" not in key}
    shared = {(each.data_ptr(), each.shape): each.numel() for each in own.values()}
    others = [name for name in state_dicts if name != evaluated]
    rest = f"; beside it {', '.join(others)}" if others else ""
    return f"{evaluated}, {sum(shared.values()):,} parameters and buffers in {len(shared)} tensors{rest}"


def _normalizer(state: Mapping[str, Any]) -> Iterator[str]:
    fields: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        found = _FIELD.search(key)
        if found and isinstance(value, Tensor):
            fields.setdefault(found["field"], {})[found["part"]] = value
    if not fields:
        yield "no normalizer: actions and observations go in and out as they are"
        return
    yield "normalizer      network input = scale * value + offset"
    for field, parts in fields.items():
        for label, part in (
            ("scale", "scale"),
            ("offset", "offset"),
            ("input min", "input_stats.min"),
            ("input max", "input_stats.max"),
        ):
            yield f"  {field:<13} {label:<10} {_numbers(parts.get(part))}"
            field = ""


def _numbers(values: Tensor | None) -> str:
    if values is None:
        return "absent"
    flat = values.detach().flatten().tolist()
    shown = " ".join(f"{value:.4g}" for value in flat[:_MOST_SHOWN])
    return f"{shown} ... ({len(flat)} in all)" if len(flat) > _MOST_SHOWN else shown


@click.command()
@click.argument("path")
@trust_option
def main(path: str, trust: bool) -> None:
    """Prints what the checkpoint at PATH holds: method, task, shapes, progress, score, weights and normalizer.

    The normalizer is where to look first if a policy does nonsense: its input min and max are those of the
    demonstrations, in the units that observations and actions must have. A scale of 1 with input min = max is a
    dimension that never moved.
    """
    try:
        click.echo(describe_checkpoint(path, trust))
    except (OSError, ValueError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
