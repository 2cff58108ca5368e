"""Makes Push-T demonstrations with a trained policy: the successes among its rollouts on fresh seeds.

This is how the demonstrations that ship with the repository were made.
"""

from pathlib import Path

import click

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.env.pusht.demonstration_recorder import recorded_keypoints_env
from diffusion_policy.env_runner.pusht_keypoints_runner import PushTKeypointsRunner
from diffusion_policy.policy.policy_loading import load_policy


class DemonstrationRunner(PushTKeypointsRunner):
    """Rollouts of which every step is kept."""

    env_class = staticmethod(recorded_keypoints_env)


@click.command(context_settings={"show_default": True})
@click.option("-c", "--checkpoint", required=True, help="Checkpoint of a policy trained on Push-T keypoints.")
@click.option("-o", "--output", required=True, help="Where to write the demonstrations (.zarr or .zarr.zip).")
@click.option("-n", "--n_episodes", default=200, help="Episodes to roll out; the successes are kept.")
@click.option("--start_seed", default=200_000, help="Seed of the first episode.")
@click.option("--n_envs", default=100, help="Episodes that run at a time.")
@click.option("-d", "--device", default="auto", help="auto, cpu, cuda:0, ...")
def main(checkpoint: str, output: str, n_episodes: int, start_seed: int, n_envs: int, device: str) -> None:
    """Rolls the policy out and keeps each episode that covers more than 95 % of the goal."""
    if Path(output).exists():
        raise click.ClickException(f"{output} exists already: remove it or choose another --output")
    policy, cfg = load_policy(checkpoint, device)
    runner = DemonstrationRunner(
        output_dir=str(Path(output).parent),
        n_train=0,
        n_train_vis=0,
        n_test=n_episodes,
        n_test_vis=0,
        legacy_test=True,
        test_start_seed=start_seed,
        max_steps=cfg.task.env_runner.max_steps,
        n_obs_steps=cfg.n_obs_steps,
        n_action_steps=cfg.n_action_steps,
        n_envs=n_envs,
    )
    rollouts = runner.rollouts(policy)
    runner.close()
    buffer = ReplayBuffer.create_empty_numpy()
    for rollout in rollouts:
        if rollout.terminated:
            buffer.add_episode(rollout.infos["demonstration"][-1])
    if buffer.n_episodes == 0:
        raise click.ClickException(f"none of {n_episodes} episodes succeeded: train the policy longer")
    buffer.save_to_path(output, compressors="disk")
    score = sum(rollout.rewards.max() for rollout in rollouts) / len(rollouts)
    click.echo(f"{buffer.n_episodes} of {n_episodes} episodes succeeded (mean max reward {score:.3f}).")
    click.echo(f"{buffer.n_steps} steps are in {Path(output).resolve()}")


if __name__ == "__main__":
    main()
