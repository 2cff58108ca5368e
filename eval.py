"""Evaluates a checkpoint in simulation: scores with confidence intervals, videos and a report.

Usage:
    python eval.py --checkpoint data/outputs/.../checkpoints/latest.ckpt -o data/eval
"""

import sys
from pathlib import Path
from typing import Any

import click

from diffusion_policy.scripts.trust_option import trust_option


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("-c", "--checkpoint", required=True, help="Checkpoint of a training run.")
@click.option("-o", "--output_dir", required=True, help="Folder for eval_log.json, media/*.mp4 and report.html.")
@click.option("-d", "--device", default="auto", help="auto, cpu, cuda:0, ...")
@click.option("--n_test", type=click.IntRange(1), default=None, help="Test episodes.  [default: as in training]")
@click.option("--seed", type=int, default=None, help="Seed of the first test episode.  [default: as in training]")
@click.option(
    "--precision", type=click.Choice(["float32", "bf16"]), default="float32", help="bf16: faster, less exact."
)
@trust_option
def main(
    checkpoint: str, output_dir: str, device: str, n_test: int | None, seed: int | None, precision: str, trust: bool
) -> None:
    """Rolls the policy of CHECKPOINT, of this framework or the original, out in the simulation it was trained for."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if Path(output_dir).exists():
        click.confirm(f"Output path {output_dir} already exists! Overwrite?", abort=True)
    from diffusion_policy.workspace.evaluation import evaluate

    given = {"n_test": n_test, "test_start_seed": seed}
    overrides: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    try:
        summary = evaluate(checkpoint, output_dir, device, overrides, precision, trust)
    except (OSError, ValueError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(summary)
    click.echo(f"Scores: {Path(output_dir, 'eval_log.json').resolve()}")
    click.echo(f"Report: {Path(output_dir, 'report.html').resolve()}")


if __name__ == "__main__":
    main()
