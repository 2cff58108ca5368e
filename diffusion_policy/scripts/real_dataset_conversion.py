"""Makes one file of a robot's recordings: the numbers, and the frame of each camera for each step."""

import os
import re
from pathlib import Path

import click

RESOLUTION = re.compile(r"(\d+)x(\d+)")


def convert(
    source: str, target: str, resolution: tuple[int, int], n_decoding_threads: int = -1, n_encoding_threads: int = -1
) -> int:
    """Writes recordings with images of `resolution` (width, height, px) to `target`, which appears when it is complete.

    A call that was killed is gone on with. Threads: -1 for as many as there are cores.

    Returns:
        How many steps there are.
    """
    from diffusion_policy.common.replay_buffer import ReplayBuffer
    from diffusion_policy.dataset.image_cache import write_cache
    from diffusion_policy.real_world.real_data_conversion import real_data_to_replay_buffer

    n_decoding, n_encoding = (n if n > 0 else os.cpu_count() or 1 for n in (n_decoding_threads, n_encoding_threads))

    def write(folder: Path) -> None:
        real_data_to_replay_buffer(
            source,
            folder,
            resolution,
            n_decoding_threads=n_decoding,
            n_encoding_threads=n_encoding,
            max_inflight_tasks=5 * n_encoding,
        )

    write_cache(Path(target).expanduser().absolute(), "converted", write)
    return ReplayBuffer.create_from_path(target).n_steps


@click.command()
@click.option("--input", "-i", "source", required=True, help="Folder with replay_buffer.zarr and videos/.")
@click.option("--output", "-o", "target", default=None, help="File to write.  [default: INPUT/RESOLUTION.zarr.zip]")
@click.option("--resolution", "-r", default="640x480", show_default=True, help="Width x height of the images, px.")
@click.option("--n_decoding_threads", "-nd", default=-1, help="Videos decoded at a time.  [default: all cores]")
@click.option("--n_encoding_threads", "-ne", default=-1, help="Images compressed at a time.  [default: all cores]")
def main(source: str, target: str | None, resolution: str, n_decoding_threads: int, n_encoding_threads: int) -> None:
    """Converts recordings of demo_real_robot.py to one .zarr.zip with images.

    Example: python -m diffusion_policy.scripts.real_dataset_conversion -i data/demo_pusht_real -r 320x240
    """
    size = RESOLUTION.fullmatch(resolution)
    if size is None:
        raise click.ClickException(f"--resolution is {resolution!r}, expected WIDTHxHEIGHT such as 640x480")
    target = target or str(Path(source) / f"{resolution}.zarr.zip")
    if not target.endswith(".zip"):
        raise click.ClickException(f"--output is {target}, expected a name that ends in .zarr.zip")
    if Path(target).exists():
        click.confirm(f"Output path {target} already exists! Overwrite?", abort=True)
    try:
        n_steps = convert(source, target, (int(size[1]), int(size[2])), n_decoding_threads, n_encoding_threads)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{n_steps} steps in {target}")


if __name__ == "__main__":
    main()
