"""Makes demonstrations of robomimic's tasks with scripted experts, as a file in robomimic's layout (HDF5).

They stand in for the published demonstrations of people where these cannot be had, and are recorded in the simulator
that is installed.
"""

import itertools
import json
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

from diffusion_policy.common.atomic_file import atomic_path
from diffusion_policy.env.robomimic.demonstrations import (
    CAMERAS,
    ENV_NAMES,
    Demonstration,
    demonstrate,
    make_env_meta,
)
from diffusion_policy.env.robomimic.env_meta import EnvMeta
from diffusion_policy.env.robomimic.robosuite_env import RobosuiteEnv

if TYPE_CHECKING:
    import h5py

_SEEDS_APART = 1_000_000
_MOST_FAILURES = 20  # for each demonstration wanted, before giving up

_env: RobosuiteEnv  # of a worker process


def generate(task: str, n_demos: int, output: str, seed: int = 0, images: bool = False, workers: int = 1) -> int:
    """Writes `n_demos` successful demonstrations to `output`, which appears when it is complete.

    They depend on `seed`, not on the number of processes.

    Args:
        images: record images of `CAMERAS`, too.
        workers: processes, each with a simulator.

    Returns:
        How many attempts there were.

    Raises:
        RuntimeError: the expert fails nearly always.
    """
    import h5py

    env_meta = make_env_meta(task)
    with (
        atomic_path(output) as temporary,
        h5py.File(temporary, "w") as file,
        _attempts(env_meta, seed, images, workers) as attempts,
    ):
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(env_meta, indent=4)
        bar = tqdm(total=n_demos, desc=f"demonstrations of {task}", mininterval=1)
        n_attempts = n_written = n_steps = 0
        for demonstration in attempts:
            n_attempts += 1
            if demonstration is not None:
                n_steps += _write(data.create_group(f"demo_{n_written}"), demonstration)
                n_written += 1
                bar.update()
            bar.set_postfix(attempts=n_attempts, refresh=False)
            if n_written == n_demos:
                break
            if n_attempts >= _MOST_FAILURES * n_demos:
                raise RuntimeError(f"the expert succeeded in {n_written} of {n_attempts} attempts: giving up")
        bar.close()
        data.attrs["total"] = n_steps
    return n_attempts


@contextmanager
def _attempts(env_meta: EnvMeta, seed: int, images: bool, workers: int) -> Iterator[Iterator[Demonstration | None]]:
    """Demonstrations of one seed after another, made in `workers` processes."""
    seeds = (seed * _SEEDS_APART + i for i in itertools.count())
    # A forked process could not open OpenGL if this one had.
    pool = multiprocessing.get_context("spawn").Pool(workers, _start, (env_meta, images))
    try:
        yield _in_order(pool, seeds, 2 * workers)
    finally:
        pool.terminate()
        pool.join()


def _in_order(pool, seeds: Iterator[int], n_ahead: int) -> Iterator[Demonstration | None]:  # type: ignore[no-untyped-def]
    """What the pool makes of endless seeds, `n_ahead` of which are under way."""
    pending = [pool.apply_async(_attempt, (next(seeds),)) for _ in range(n_ahead)]
    while True:
        yield pending.pop(0).get()
        pending.append(pool.apply_async(_attempt, (next(seeds),)))


def _start(env_meta: EnvMeta, images: bool) -> None:
    global _env
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _env = RobosuiteEnv(env_meta, CAMERAS if images else None, hard_reset=True)


def _attempt(seed: int) -> Demonstration | None:
    return demonstrate(_env, seed)


def _write(group: "h5py.Group", demonstration: Demonstration) -> int:
    for name, array in demonstration.arrays.items():
        if not name.endswith("_image"):
            group.create_dataset(name, data=array)
        elif not name.startswith("next_obs/"):
            group.create_dataset(name, data=array, chunks=(1, *array.shape[1:]), compression="gzip", compression_opts=3)
    group.attrs["model_file"] = demonstration.model
    group.attrs["num_samples"] = len(demonstration.arrays["actions"])
    return len(demonstration.arrays["actions"])


@click.command(context_settings={"show_default": True})
@click.option("--task", type=click.Choice(sorted(ENV_NAMES)), required=True, help="The task.")
@click.option("--n_demos", type=click.IntRange(1), default=200, help="Demonstrations to write: the successes.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Other seeds give other demonstrations.")
@click.option("--output", help="HDF5 file to write.  [default: where the task's config looks for it]")
@click.option("--images", is_flag=True, help="Record images of the two cameras of robomimic's files, 84x84, too.")
@click.option("--workers", type=click.IntRange(1), default=os.cpu_count(), help="Processes, each with a simulator.")
def main(task: str, n_demos: int, seed: int, output: str | None, images: bool, workers: int) -> None:
    """Let a scripted expert do a task of robomimic's in robosuite, and keep the episodes in which it succeeds.

    Example: python -m diffusion_policy.scripts.generate_robomimic_demos --task lift
    """
    name = "image" if images else "low_dim"
    path = Path(output or f"data/robomimic/datasets/{task}/ph/{name}.hdf5")
    if path.exists():
        raise click.ClickException(f"{path} exists already: remove it or choose another --output")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        n_attempts = generate(task, n_demos, str(path), seed, images, workers)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{n_demos} of {n_attempts} attempts succeeded. {path} has {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
