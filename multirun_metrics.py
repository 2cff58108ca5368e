"""Aggregates the scores of the runs of a sweep, while they go on or afterwards.

Usage:
    python multirun_metrics.py -i data/outputs/... -k test/mean_score
"""

import logging
from contextlib import nullcontext, suppress
from pathlib import Path

import click

from diffusion_policy.common.wandb_run import wandb_run
from diffusion_policy.sweep.metrics import (  # noqa: F401 - also for those who import them from here
    compute_metrics,
    compute_metrics_agg,
    get_indexed_window_average,
)
from diffusion_policy.sweep.monitor import Monitor, follow, metrics_folder
from diffusion_policy.sweep.sweep_report import result_table


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--input", "-i", required=True, help="Root logging dir, contains train_* dirs")
@click.option("--key", "-k", multiple=True, default=["test/mean_score"], help="Score to aggregate; may be given again.")
@click.option("--interval", default=10, type=float, help="Seconds between two looks at the logs.")
@click.option("--replace_slash", default=True, type=bool, help="Write max/test_mean_score, not max/test/mean_score.")
@click.option("--index_key", "-ik", default="global_step", help="What steps are counted by, or epoch.")
@click.option("--use_wandb", "-w", is_flag=True, default=False, help="Log to W&B too.")
@click.option("--project", default=None, help="Of W&B.")
@click.option("--name", default=None, help="Of the W&B run.")
@click.option("--id", default=None, help="Of the W&B run, to continue it.")
@click.option("--group", default=None, help="Of W&B runs.")
@click.option("--quiet", "-q", is_flag=True, default=False, help="No table at the end.")
def main(input, key, interval, replace_slash, index_key, use_wandb, project, name, id, group, quiet):
    """Writes INPUT/metrics/{logs.json.txt,metrics.json,metrics.log,report.html} until all runs are over, or Ctrl-C."""
    try:
        monitor = Monitor(Path(input), key, index_key, replace_slash)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    metrics = metrics_folder(Path(input))
    handlers = [logging.StreamHandler(), logging.FileHandler(metrics / "metrics.log")]
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", handlers=handlers)
    options = {"project": project, "name": name, "id": id, "group": group, "resume": "allow" if id else None}
    config = {"input": input, "key": list(key), "index_key": index_key}
    run = wandb_run("auto", str(metrics), config, **options) if use_wandb else nullcontext(lambda record, step: None)
    with suppress(KeyboardInterrupt), run as log:
        follow(monitor, interval, log)
    if monitor.result is None:
        raise click.ClickException(f"no run in {input} has logged {', '.join(key)} yet")
    if quiet:
        return
    click.echo(result_table(monitor.result, monitor.labels))
    click.echo(f"Report: {(metrics / 'report.html').resolve()}")


if __name__ == "__main__":
    main()
