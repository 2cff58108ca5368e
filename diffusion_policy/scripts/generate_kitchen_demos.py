"""Makes demonstrations of the kitchen with a scripted expert, in the layout of those of relay policy learning.

They are for trying things out: the expert does two of the seven tasks. Published scores come from the human
demonstrations.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

TASKS = ("light switch", "slide cabinet")
MAX_STEPS = 280
START_NOISE = 0.05  # rad, of the arm's joints


def demonstration(env: Any, tasks: tuple[str, ...], seed: int) -> dict[str, np.ndarray] | None:
    """Lets the expert do `tasks` in an order that the seed decides; None if it does not do all of them.

    Returns:
        `obs` `(T, 60)` and `action` `(T, 9)`; `init_qpos` `(30,)` and `init_qvel` `(29,)`; `ctrl` `(T, 9)`, `qpos`
        `(T, 30)` and `qvel` `(T, 29)`, the states in which the actions were taken and what the motors were told.
    """
    from diffusion_policy.env.kitchen.scripted_expert import ScriptedExpert

    generator = np.random.default_rng(seed)
    env.reset(seed=seed)
    qpos = env.init_qpos.copy()
    qpos[:7] += generator.uniform(-START_NOISE, START_NOISE, 7)
    env.set_state(qpos, env.init_qvel)
    obs = env.observe()
    expert = ScriptedExpert(env, tuple(generator.permutation(tasks)), generator)
    steps = []
    for action in expert.actions():
        state = {"qpos": env.data.qpos.copy(), "qvel": env.data.qvel.copy(), "ctrl": env.control(action)}
        steps.append({"obs": obs, "action": action, **state})
        obs, *_ = env.step(action)
        if len(steps) == MAX_STEPS:
            break
    if not all(env.completed[env.ALL_TASKS.index(task)] for task in tasks):
        return None
    episode = {key: np.stack([step[key] for step in steps]) for key in steps[0]}
    return {**episode, "init_qpos": qpos, "init_qvel": env.init_qvel}


def write_relay_layout(folder: Path, episodes: list[dict[str, np.ndarray]]) -> None:
    """Writes the arrays of relay policy learning, padded with zeros to the longest episode, `(E, T, ...)`."""
    longest = max(len(episode["obs"]) for episode in episodes)

    def padded(arrays: list[np.ndarray]) -> np.ndarray:
        return np.stack([np.pad(a, ((0, longest - len(a)), *[(0, 0)] * (a.ndim - 1))) for a in arrays])

    np.save(folder / "observations_seq.npy", padded([e["obs"] for e in episodes]).astype(np.float64))
    np.save(folder / "actions_seq.npy", padded([e["action"] for e in episodes]))
    np.save(folder / "existence_mask.npy", padded([np.ones(len(e["obs"])) for e in episodes]))
    np.save(folder / "all_init_qpos.npy", np.stack([e["init_qpos"] for e in episodes]))
    np.save(folder / "all_init_qvel.npy", np.stack([e["init_qvel"] for e in episodes]))


def write_recordings(folder: Path, episodes: list[dict[str, np.ndarray]]) -> None:
    """Writes one `.mjl` file an episode, each state as often as the simulation steps until the next."""
    from diffusion_policy.env.kitchen.kitchen_util import write_mjl_log
    from diffusion_policy.env.kitchen.state import SIMULATION_STEPS, STEP_SEC

    target = folder / "kitchen_demos_multitask" / "scripted"
    target.mkdir(parents=True)
    for i, episode in enumerate(episodes):
        qpos, qvel, ctrl = (np.repeat(episode[key], SIMULATION_STEPS, axis=0) for key in ("qpos", "qvel", "ctrl"))
        time = np.arange(len(qpos)) * STEP_SEC / SIMULATION_STEPS
        write_mjl_log(target / f"{i:04d}.mjl", time, qpos, qvel, ctrl)


@click.command(context_settings={"show_default": True})
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A folder that is not there yet.")
@click.option("-n", "--n_episodes", default=100, type=click.IntRange(1), help="Demonstrations to make.")
@click.option("--seed", default=0, help="Of the first demonstration.")
@click.option("--task", "tasks", multiple=True, type=click.Choice(TASKS), default=TASKS, help="May be repeated.")
@click.option("--noise", default=0.1, help="robot_noise_ratio of the observations.")
@click.option("--mjl", is_flag=True, help="Write recordings for task=kitchen_lowdim_abs, too (about 2 MB each).")
def main(output: Path, n_episodes: int, seed: int, tasks: tuple[str, ...], noise: float, mjl: bool) -> None:
    """Makes demonstrations of tasks in the kitchen, in an order that differs between them.

    Train on them with task=kitchen_lowdim task.dataset_dir=OUTPUT.
    """
    if output.exists():
        raise click.ClickException(f"{output} exists already: remove it or choose another --output")
    try:
        from diffusion_policy.env.kitchen.v0 import KitchenAllV0
    except ModuleNotFoundError as error:
        raise click.ClickException(str(error)) from error
    env = KitchenAllV0(robot_noise_ratio=noise)
    episodes: list[dict[str, np.ndarray]] = []
    last_seed = seed + 3 * n_episodes
    with tqdm(total=n_episodes, desc="demonstrations") as bar:
        for attempt in range(seed, last_seed):
            if (episode := demonstration(env, tuple(dict.fromkeys(tasks)), attempt)) is not None:
                episodes.append(episode)
                bar.update()
            if len(episodes) == n_episodes:
                break
        else:
            raise click.ClickException(f"the expert did its tasks only {len(episodes)} times in {3 * n_episodes}")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".writing-") as temporary:
        folder = Path(temporary, "demonstrations")
        folder.mkdir()
        write_relay_layout(folder, episodes)
        if mjl:
            write_recordings(folder, episodes)
        os.rename(folder, output)
    n_steps = sum(len(episode["obs"]) for episode in episodes)
    click.echo(
        f"{n_episodes} demonstrations of {attempt + 1 - seed} attempts, {n_steps} steps, are in {output.resolve()}"
    )


if __name__ == "__main__":
    main()
