"""Makes block pushing demonstrations with the oracle, in both orders and to both targets."""

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import click
from tqdm import tqdm

from diffusion_policy.common.replay_buffer import ReplayBuffer


@click.command(context_settings={"show_default": True})
@click.option("-o", "--output", required=True, help="Where to write the demonstrations (.zarr or .zarr.zip).")
@click.option("-n", "--n_episodes", default=1000, help="Episodes to try; the successes are kept.")
@click.option("-c", "--chunk_length", default=-1, help="Rows of a chunk of the arrays; -1: about 2 MB.")
@click.option("--start_seed", default=200_000, help="Seed of the first episode.")
@click.option("--max_steps", default=350, help="Steps that an episode may take.")
@click.option("--action_noise_std", default=0.0, help="Noise on the oracle's actions (m).")
@click.option(
    "--disturbance_std",
    default=0.0,
    help="Noise that is done but not recorded (m), so that policies see how to get back to a block that slipped away. "
    "For absolute actions take --abs_action then: a conversion would take what was done.",
)
@click.option("--abs_action", is_flag=True, help="Actions are where the effector goes, not how far.")
@click.option("-j", "--n_workers", default=1, help="Processes.")
def main(
    output: str,
    n_episodes: int,
    chunk_length: int,
    start_seed: int,
    max_steps: int,
    action_noise_std: float,
    disturbance_std: float,
    abs_action: bool,
    n_workers: int,
) -> None:
    """Demonstrates block pushing: obs (16), action (2); the same for a seed, whatever the number of processes."""
    if Path(output).exists():
        raise click.ClickException(f"{output} exists already: remove it or choose another --output")
    for name, value in (("n_episodes", n_episodes), ("max_steps", max_steps), ("n_workers", n_workers)):
        if value < 1:
            raise click.BadParameter(f"{value} is less than 1", param_hint=name)
    try:
        from diffusion_policy.env.block_pushing.oracles.demonstration import demonstrate
    except ImportError as error:  # pybullet is absent
        raise click.ClickException(str(error)) from error
    buffer = ReplayBuffer.create_empty_numpy()
    play = partial(
        demonstrate,
        max_steps=max_steps,
        action_noise_std=action_noise_std,
        abs_action=abs_action,
        disturbance_std=disturbance_std,
    )
    with ProcessPoolExecutor(n_workers, mp_context=get_context("forkserver")) as workers:
        episodes = workers.map(play, range(start_seed, start_seed + n_episodes))
        for episode in tqdm(episodes, total=n_episodes, desc="demonstrations"):
            if episode is not None:
                buffer.add_episode(episode)
    if buffer.n_episodes == 0:
        raise click.ClickException(f"none of {n_episodes} episodes succeeded: allow more --max_steps or less noise")
    chunks = {} if chunk_length < 1 else {key: (chunk_length, *array.shape[1:]) for key, array in buffer.items()}
    buffer.save_to_path(output, chunks=chunks)
    click.echo(f"{buffer.n_episodes} of {n_episodes} episodes succeeded.")
    click.echo(f"{buffer.n_steps} steps are in {Path(output).resolve()}")


if __name__ == "__main__":
    main()
