"""Converts the block pushing demonstrations of Behavior Transformers (Shafiullah et al. 2022) to a replay buffer."""

from pathlib import Path

import click
import numpy as np

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.scripts.blockpush_abs_conversion import TARGET_EEF_IDX, absolute_actions

FILES = {
    "obs": "multimodal_push_observations.npy",
    "action": "multimodal_push_actions.npy",
    "mask": "multimodal_push_masks.npy",
}


@click.command()
@click.option("-i", "--input", required=True, help="input dir contains npy files")
@click.option("-o", "--output", required=True, help="output zarr path")
@click.option("--abs_action", is_flag=True, help="Actions are to be where the effector goes, not how far.")
def main(input: str, output: str, abs_action: bool) -> None:
    """Joins multimodal_push_{observations,actions,masks}.npy, padded episodes of equal length."""
    if Path(output).exists():
        raise click.ClickException(f"{output} exists already: remove it or choose another --output")
    arrays = {key: _load(Path(input, name)) for key, name in FILES.items()}
    lengths = _episode_lengths(arrays, input)
    buffer = ReplayBuffer.create_empty_numpy()
    for i, length in enumerate(lengths):
        obs, action = arrays["obs"][i, :length], arrays["action"][i, :length]
        if abs_action:
            action = absolute_actions(obs, action, TARGET_EEF_IDX)
        buffer.add_episode({"obs": obs.astype(np.float32), "action": action.astype(np.float32)})
    buffer.save_to_path(output)
    click.echo(f"{buffer.n_episodes} episodes, {buffer.n_steps} steps are in {Path(output).resolve()}")


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise click.ClickException(f"there is no {path}: --input has to hold {', '.join(FILES.values())}") from None
    except (ValueError, EOFError, OSError) as error:
        raise click.ClickException(f"{path} is damaged or no array ({error}): fetch it again") from None


def _episode_lengths(arrays: dict[str, np.ndarray], source: str) -> list[int]:
    """Steps of each episode: those before the padding, where the mask is 1."""
    mask = arrays["mask"]
    wanted = {"obs": (*mask.shape, 16), "action": (*mask.shape, 2), "mask": mask.shape[:2]}
    for key, shape in wanted.items():
        if arrays[key].shape != shape:
            raise click.ClickException(f"{source}: {FILES[key]} is {arrays[key].shape}, expected {shape}")
    lengths = (np.asarray(mask) != 0).sum(axis=1)
    if not (lengths > 0).all():
        raise click.ClickException(f"{source}: episode {int(np.argmin(lengths))} of {FILES['mask']} has no steps")
    return [int(length) for length in lengths]


if __name__ == "__main__":
    main()
