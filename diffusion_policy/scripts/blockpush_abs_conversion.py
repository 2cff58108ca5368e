"""Makes absolute actions of relative ones: where the effector is driven to, instead of how far."""

from pathlib import Path

import click
import numpy as np

from diffusion_policy.common.replay_buffer import ReplayBuffer

TARGET_EEF_IDX = 8


@click.command()
@click.option("-i", "--input", required=True, help="Demonstrations with relative actions (.zarr or .zarr.zip).")
@click.option("-o", "--output", required=True, help="Where to write those with absolute ones.")
@click.option(
    "-t",
    "--target_eef_idx",
    default=TARGET_EEF_IDX,
    show_default=True,
    help="First of the observation's columns that say where the effector is driven to.",
)
def main(input: str, output: str, target_eef_idx: int) -> None:
    """Converts block pushing demonstrations; `obs` stays as it is."""
    if Path(output).exists():
        raise click.ClickException(f"{output} exists already: remove it or choose another --output")
    try:
        buffer = ReplayBuffer.copy_from_path(input)
        converted = ReplayBuffer.create_empty_numpy()
        for i in range(buffer.n_episodes):
            episode = buffer.get_episode(i)
            converted.add_episode(
                {**episode, "action": absolute_actions(episode["obs"], episode["action"], target_eef_idx)}
            )
    except (OSError, ValueError, KeyError) as error:
        raise click.ClickException(str(error)) from error
    converted.save_to_path(output)
    click.echo(f"{converted.n_episodes} episodes, {converted.n_steps} steps are in {Path(output).resolve()}")


def absolute_actions(obs: np.ndarray, action: np.ndarray, target_eef_idx: int = TARGET_EEF_IDX) -> np.ndarray:
    """Where each action drives the effector to, of an episode.

    Args:
        obs: `(N, Do)`, before each action; columns `target_eef_idx` and the next: where the effector is driven to.
        action: `(N, 2)`, how far that moves.

    Returns:
        `(N, 2)`: what the next observation says, which knows the workspace's bounds, and after the last the sum.
    """
    if obs.ndim != 2 or action.ndim != 2 or action.shape[1] != 2 or not 0 <= target_eef_idx <= obs.shape[1] - 2:
        raise ValueError(
            f"obs has steps of shape {list(obs.shape[1:])} and action {list(action.shape[1:])}, expected [Do] and [2] "
            f"with target_eef_idx {target_eef_idx} at most Do - 2"
        )
    target = obs[:, target_eef_idx : target_eef_idx + 2]
    return np.concatenate((target[1:], target[-1:] + action[-1:])).astype(action.dtype)


if __name__ == "__main__":
    main()
