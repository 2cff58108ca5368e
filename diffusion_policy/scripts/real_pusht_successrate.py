"""How often a policy pushes the block as well onto its goal as people do."""

import json
from pathlib import Path
from typing import Any

import click

from diffusion_policy.common.statistics import bootstrap_interval, wilson_interval
from diffusion_policy.scripts.real_pusht_metrics import RAW


def read_metrics(path: Path) -> dict[str, Any]:
    """What `real_pusht_metrics` wrote: by episode, lists of `iou` and `coverage`.

    Raises:
        ValueError: it is something else, or of no episode.
    """
    try:
        raw = json.loads(path.read_text())
        lengths = [len(episode["iou"]) for episode in raw.values()]
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a {RAW} of real_pusht_metrics ({error})") from error
    if not lengths or not min(lengths):
        raise ValueError(f"{path} has no episode, or one without frames")
    return raw


def success_rate(raw: dict[str, Any], threshold: float) -> dict[str, Any]:
    """Share of the episodes at whose end the intersection over union is at least `threshold`, with 95 % intervals."""
    last = [episode["iou"][-1] for episode in raw.values()]
    successes = sum(value >= threshold for value in last)
    return {
        "n": len(last),
        "success_rate": successes / len(last),
        "success_interval": wilson_interval(successes, len(last)),
        "iou": sum(last) / len(last),
        "iou_interval": bootstrap_interval(last),
    }


@click.command()
@click.option("--reference", "-r", required=True, help="metrics_raw.json of the demonstrations.")
@click.option(
    "--input", "-i", "source", required=True, help="Folder in and below which metrics_raw.json are looked for."
)
def main(reference: str, source: str) -> None:
    """Prints, for each dataset below INPUT, how often it ends as well as the worst demonstration.

    Example: python -m diffusion_policy.scripts.real_pusht_successrate
    -r data/demo_pusht_real/metrics/metrics_raw.json -i data
    """
    try:
        threshold = min(episode["iou"][-1] for episode in read_metrics(Path(reference)).values())
        paths = sorted(Path(source).rglob(RAW))
        if not paths:
            raise ValueError(f"there is no {RAW} below {source}: write it with real_pusht_metrics")
        rates = {path: success_rate(read_metrics(path), threshold) for path in paths}
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"success: intersection over union of at least {threshold:.3f} at the end, that of the worst demonstration"
    )
    for path, rate in rates.items():
        (low, high), (iou_low, iou_high) = rate["success_interval"], rate["iou_interval"]
        click.echo(
            f"{path.parent}: {rate['success_rate']:.0%} [{low:.0%}, {high:.0%}] of {rate['n']} episodes, "
            f"IoU {rate['iou']:.3f} [{iou_low:.3f}, {iou_high:.3f}]"
        )


if __name__ == "__main__":
    main()
