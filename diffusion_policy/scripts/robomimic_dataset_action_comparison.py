"""Compares the actions of two files of robomimic's, such as two conversions of the same demonstrations."""

import click
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from diffusion_policy.common.robomimic_hdf5 import check_steps, demo_names, open_robomimic, read_rows
from diffusion_policy.model.common.absolute_actions import ENV_DIM


def read_all_actions(path: str, metric_skip_steps: int = 1) -> NDArray[np.float64]:
    """Actions of all demonstrations, `(N, arms, 7)`, without the first `metric_skip_steps` of each.

    Raises:
        ValueError: the file is damaged, or actions are not of arms with position, axis-angle and gripper.
    """
    with open_robomimic(path) as file:
        names = demo_names(file)
        (dim,) = check_steps(file, names, ["actions"])["actions"]
        if dim % ENV_DIM:
            raise ValueError(f"{path}: actions have {dim} entries, expected {ENV_DIM} for each arm")
        actions = [read_rows(file, f"data/{name}/actions")[metric_skip_steps:] for name in names]
    return np.concatenate(actions).astype(np.float64).reshape(-1, dim // ENV_DIM, ENV_DIM)


@click.command()
@click.option("-i", "--input", "source", required=True, help="input hdf5 path")
@click.option("-o", "--output", "target", required=True, help="hdf5 path to compare it with")
def main(source: str, target: str) -> None:
    """Print how far the poses in two files' actions are apart: median, 99th percentile and largest."""
    try:
        one, other = read_all_actions(source), read_all_actions(target)
    except (ImportError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if one.shape != other.shape:
        raise click.ClickException(
            f"the files differ in their actions: {one.shape} in {source}, {other.shape} in {target}"
        )
    first, second = (Rotation.from_rotvec(actions[..., 3:6].reshape(-1, 3)) for actions in (one, other))
    distances = {
        "position (m)": np.linalg.norm(one[..., :3] - other[..., :3], axis=-1),
        "rotation (rad)": (first * second.inv()).magnitude(),
        "gripper": np.abs(one[..., 6] - other[..., 6]),
    }
    for name, values in distances.items():
        low, high = np.percentile(values, [50, 99])
        click.echo(f"{name:16} median {low:.6f}   99 % {high:.6f}   largest {values.max():.6f}")


if __name__ == "__main__":
    main()
