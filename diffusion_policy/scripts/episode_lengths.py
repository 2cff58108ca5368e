"""How long the episodes of a replay buffer are."""

import json

import click
import numpy as np

from diffusion_policy.common.replay_buffer import ReplayBuffer


@click.command(context_settings={"show_default": True})
@click.option("--input", "-i", "source", required=True, help="Folder or zip of demonstrations (.zarr or .zarr.zip).")
@click.option("--dt", default=0.1, type=float, help="Duration of a step (s).")
def main(source: str, dt: float) -> None:
    """Print number and durations (s) of the episodes as JSON."""
    try:
        buffer = ReplayBuffer.create_from_path(source)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if buffer.n_episodes == 0:
        raise click.ClickException(f"{source} has no episodes")
    durations = buffer.episode_lengths * dt
    statistics = {name: float(getattr(np, name)(durations)) for name in ("mean", "std", "min", "median", "max", "sum")}
    click.echo(json.dumps({"n_episodes": buffer.n_episodes, "n_steps": buffer.n_steps, **statistics}, indent=2))


if __name__ == "__main__":
    main()
