"""How well the block covers its goal in the videos of Push-T on a robot."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from diffusion_policy.common.atomic_file import atomic_path
from diffusion_policy.real_world.recorded_dataset import camera_videos, open_recordings
from diffusion_policy.real_world.video_files import all_frames

Mask = NDArray[np.bool_]
Ranges = Sequence[Sequence[int]]

HSV_RANGES: Ranges = ((0, 255), (130, 216), (150, 230))
"""Least and greatest hue, saturation and value of the block, 0 to 255: a strong colour, neither dark nor bright."""

RAW, AGGREGATE = "metrics_raw.json", "metrics_agg.json"


def get_t_mask(img: NDArray[np.uint8], hsv_ranges: Ranges = HSV_RANGES) -> Mask:
    """Where the block is in an RGB image: `(H, W)` of `(H, W, 3)`."""
    hsv = cv2.cvtColor(img, cv2.COLOR_RGB2HSV_FULL)
    low, high = np.array(hsv_ranges).T
    return ((low <= hsv) & (hsv <= high)).all(axis=-1)


def get_mask_metrics(target_mask: Mask, mask: Mask) -> dict[str, float]:
    """`iou`, intersection over union, and `coverage`, the share of the target that is covered."""
    both, either, target = (int(each.sum()) for each in (target_mask & mask, target_mask | mask, target_mask))
    return {"iou": both / max(either, 1), "coverage": both / max(target, 1)}


def get_video_metrics(
    video_path: str | Path, target_mask: Mask, hsv_ranges: Ranges = HSV_RANGES
) -> dict[str, list[float]]:
    """The metrics of each frame of a video."""
    frames = [get_mask_metrics(target_mask, get_t_mask(image, hsv_ranges)) for image in all_frames(video_path)]
    return {key: [frame[key] for frame in frames] for key in ("iou", "coverage")}


def goal_mask(reference: str | Path, hsv_ranges: Ranges = HSV_RANGES) -> Mask:
    """Where the block is at the end of a video.

    Raises:
        ValueError: nothing there has the block's colour.
    """
    for image in all_frames(reference):
        last = image
    mask = get_t_mask(last, hsv_ranges)
    if not mask.any():
        raise ValueError(f"the last frame of {reference} has nothing of the block's colour: set it by --hsv")
    return mask


def aggregate(raw: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Of each metric the mean over episodes of its value at the end, and of its greatest value."""
    result = {}
    for metric in ("iou", "coverage"):
        values = [episode[metric] for episode in raw.values()]
        result[metric] = {
            "last": float(np.mean([each[-1] for each in values])),
            "max": float(np.mean([max(each) for each in values])),
        }
    return result


@click.command()
@click.option("--reference", "-r", required=True, help="Video whose last frame defines the goal.")
@click.option("--input", "-i", "source", required=True, help="Recordings to evaluate.")
@click.option("--camera_idx", "-ci", default=0, show_default=True, help="Camera of the recordings; the reference's.")
@click.option("--n_workers", "-n", default=20, show_default=True, help="Videos at a time.")
@click.option(
    "--hsv",
    type=int,
    nargs=6,
    default=[bound for bounds in HSV_RANGES for bound in bounds],
    show_default=True,
    help="Least and greatest hue, saturation and value of the block, 0 to 255.",
)
def main(reference: str, source: str, camera_idx: int, n_workers: int, hsv: tuple[int, ...]) -> None:
    """Writes how well the block covers its goal, frame by frame, to INPUT/metrics.

    Example: python -m diffusion_policy.scripts.real_pusht_metrics -r data/demo_pusht_real/videos/0/0.mp4
    -i data/eval_pusht_real
    """
    ranges = (hsv[0:2], hsv[2:4], hsv[4:6])
    key = f"camera_{camera_idx}"
    try:
        target = goal_mask(reference, ranges)
        videos = camera_videos(source, open_recordings(source).n_episodes, [key])[key]
        with ThreadPoolExecutor(n_workers) as pool:
            metrics = pool.map(lambda path: get_video_metrics(path, target, ranges), videos)
            raw = {str(i): each for i, each in enumerate(tqdm(metrics, total=len(videos), desc="videos"))}
        folder = Path(source) / "metrics"
        folder.mkdir(exist_ok=True)
        for name, content in ((RAW, raw), (AGGREGATE, aggregate(raw))):
            with atomic_path(folder / name) as temporary:
                temporary.write_text(json.dumps(content, indent=2))
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    for metric, values in aggregate(raw).items():
        click.echo(f"{metric}: {values['last']:.3f} at the end, {values['max']:.3f} at best ({len(raw)} episodes)")


if __name__ == "__main__":
    main()
