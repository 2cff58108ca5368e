"""Shows what `--debug` has kept: whether what the policy sees is what it was trained on.

Usage:
    python -m diffusion_policy.serving.inspect DIR
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from jinja2 import Environment, StrictUndefined

from diffusion_policy.common.atomic_file import atomic_path
from diffusion_policy.serving import inspect_parts as parts
from diffusion_policy.serving.debug_recorder import ACTIONS, META, RECEIVED, SEEN

TEMPLATE = Path(__file__).with_name("inspect_template.html")


@dataclass
class Page:
    """What is shown of one request."""

    title: str
    meta: dict[str, Any]
    received: list[parts.Picture] = field(default_factory=list)
    seen: list[parts.Picture] = field(default_factory=list)
    numbers: list[parts.Numbers] = field(default_factory=list)
    charts: list[parts.Chart] = field(default_factory=list)


def write_page(folder: str | Path, output: str | Path | None = None, last: int = 50) -> Path:
    """Writes an HTML page of the last requests in a folder, and returns its path.

    Args:
        folder: that `--debug` was given.
        output: the page; `inspect.html` in the folder if None.
        last: requests to show.

    Raises:
        FileNotFoundError: there are none.
    """
    paths = sorted(Path(folder).glob("*.npz"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no requests: name the folder that the server's --debug was given")
    pages = [_page(path) for path in paths[-last:]]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    size = (parts.WIDTH, parts.HEIGHT)
    html = template.render(pages=pages, n_requests=len(paths), folder=folder, size=size)
    target = Path(output or Path(folder, "inspect.html"))
    with atomic_path(target) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return target


def _page(path: Path) -> Page:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    meta = json.loads(str(arrays.pop(META)))
    page = Page(f"{time.strftime('%H:%M:%S', time.localtime(meta['time']))} {path.stem}", meta)
    if ACTIONS in arrays:
        page.charts = list(parts.charts(arrays.pop(ACTIONS), meta["ranges"].get("action")))
    for key, array in arrays.items():
        if key.startswith(RECEIVED):
            page.received += parts.received(key.removeprefix(RECEIVED), array)
            continue
        name = key.removeprefix(SEEN)
        for i, step in enumerate(array):
            title = f"{name}, step {i + 1} of {len(array)}"
            if step.ndim == 3:
                is_bytes = step.dtype == np.uint8
                page.seen.append(parts.picture(title, np.moveaxis(step, 0, -1) if is_bytes else step))
            else:
                page.numbers.append(parts.numbers(title, step, meta["ranges"].get(name)))
    return page


@click.command(context_settings={"show_default": True})
@click.argument("folder", metavar="DIR")
@click.option("-o", "--output", default=None, help="The page.  [default: DIR/inspect.html]")
@click.option("-n", "--last", type=click.IntRange(1), default=50, help="Requests to show, the last ones.")
def main(folder: str, output: str | None, last: int) -> None:
    """Writes an HTML page of the requests that a server's --debug DIR has kept.

    For each request it shows the images as they were received and as the policy saw them, the sensors' values beside
    the range they had in training, and the actions likewise.
    """
    try:
        click.echo(f"Open in a browser: {write_page(folder, output, last).resolve()}")
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
