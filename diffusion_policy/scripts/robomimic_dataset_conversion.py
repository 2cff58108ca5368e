"""Makes the actions of robomimic's demonstrations absolute: each becomes the pose that the controller made of it."""

import json
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import click
from numpy.typing import NDArray
from tqdm import tqdm

from diffusion_policy.common.atomic_file import atomic_path
from diffusion_policy.env.robomimic.absolute_action_converter import RobomimicAbsoluteActionConverter

TOLERANCE = 0.01  # m that the hand of a replay may be off before there is a warning

_converter: RobomimicAbsoluteActionConverter  # of a worker process


def convert(source: str, target: str, eval_dir: str | None = None, num_workers: int | None = None) -> list[Any]:
    """Copies `source` to `target` with absolute actions; `target` appears when it is complete.

    Args:
        eval_dir: replay every demonstration, with the old actions and with the new, and write there how far the
            replays are from what was recorded, to `error_stats.json`. Else only the first is replayed.
        num_workers: processes (default: all cores).

    Returns:
        The errors of each demonstration that was replayed, see `convert_and_eval_idx`.
    """
    import h5py

    converter = RobomimicAbsoluteActionConverter(source)  # complains here, not in each process
    names = converter.names
    converter.close()
    jobs = [(i, eval_dir is not None or i == 0) for i in range(len(names))]
    processes = min(num_workers or os.cpu_count() or 1, len(names))
    errors = []
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
        context = multiprocessing.get_context("spawn")
        with h5py.File(temporary, "r+") as file, context.Pool(processes, _start, (source,)) as pool:
            results = pool.imap(worker, jobs)
            for name, (actions, error) in zip(names, tqdm(results, desc="converting", total=len(names)), strict=True):
                file["data"][name]["actions"][...] = actions
                errors += [] if error is None else [{"demo": name, **error}]
    if eval_dir is not None:
        Path(eval_dir).mkdir(parents=True, exist_ok=True)
        with atomic_path(Path(eval_dir) / "error_stats.json") as temporary:
            temporary.write_text(json.dumps(errors, indent=2))
    return errors


def worker(job: tuple[int, bool]) -> tuple[NDArray[Any], Any]:
    """The converted actions of a demonstration and, if asked for, the errors of its replays."""
    idx, evaluate = job
    return _converter.convert_and_eval_idx(idx) if evaluate else (_converter.convert_idx(idx), None)


def _start(source: str) -> None:
    global _converter
    _converter = RobomimicAbsoluteActionConverter(source)


@click.command()
@click.option("-i", "--input", "source", required=True, help="input hdf5 path")
@click.option("-o", "--output", "target", required=True, help="output hdf5 path. Parent directory must exist")
@click.option("-e", "--eval_dir", default=None, help="directory to output evaluation metrics")
@click.option("-n", "--num_workers", default=None, type=int, help="processes  [default: all cores]")
def main(source: str, target: str, eval_dir: str | None, num_workers: int | None) -> None:
    """Convert a robomimic dataset's actions, steps of the hand, to poses that it is to reach.

    Example: python -m diffusion_policy.scripts.robomimic_dataset_conversion -i low_dim.hdf5 -o low_dim_abs.hdf5
    """
    if not Path(target).absolute().parent.is_dir():
        raise click.ClickException(f"the folder of {target} does not exist: make it, or choose another --output")
    if Path(target).exists():
        raise click.ClickException(f"{target} exists already: remove it or choose another --output")
    try:
        errors = convert(source, target, eval_dir, num_workers)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    for kind in ("delta_max_error", "abs_max_error"):
        worst = {key: max(error[kind][key] for error in errors) for key in ("pos", "rot")}
        click.echo(f"{kind} of {len(errors)} replays: {worst['pos']:.4f} m, {worst['rot']:.4f} rad")
    if max(error["abs_max_error"]["pos"] for error in errors) > TOLERANCE:
        click.echo(
            f"Warning: a replay of absolute actions is off by more than {TOLERANCE} m. Was the dataset recorded in a "
            "simulator that behaves otherwise? Compare with the replay of its own actions (delta_max_error)."
        )
    click.echo(f"{target} has the absolute actions")


if __name__ == "__main__":
    main()
