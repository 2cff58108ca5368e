"""Weights & Biases without surprises: no prompt, no crash without network."""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

logger = logging.getLogger(__name__)

LogFunction = Callable[[Mapping[str, Any], int], None]


@contextmanager
def wandb_run(mode: str, output_dir: str, config: Mapping[str, Any], **kwargs: Any) -> Iterator[LogFunction]:
    """Opens a run and gives the function that logs to it, `log(values, step)`.

    Args:
        mode: "auto" (online if logged in, else offline), "online", "offline" or "disabled".
        output_dir: folder whose `wandb/` holds the run's files.
        config: shown with the run.
        kwargs: as for `wandb.init` (`project`, `name`, `tags`, `id`, `group`, `resume`).
    """
    if mode not in ("auto", "online", "offline", "disabled"):
        raise ValueError(f"logging.mode must be auto, online, offline or disabled, got {mode!r}")
    mode = os.environ.get("WANDB_MODE", mode) if mode != "disabled" else mode
    if mode == "disabled":
        yield lambda values, step: None
        return
    run = _init(mode, output_dir, config, kwargs)
    try:
        yield lambda values, step: run.log(dict(values), step=step)
    finally:
        run.finish()


def _init(mode: str, output_dir: str, config: Mapping[str, Any], kwargs: dict[str, Any]) -> Any:
    import wandb

    if mode != "offline" and not wandb.api.api_key:
        if mode == "online":
            logger.warning("not logged in to W&B: logging offline. Log in with `wandb login`, then `wandb sync`")
        mode = "offline"
    if mode != "offline" and not _is_reachable(wandb.Settings().base_url):
        logger.warning("W&B cannot be reached: logging offline; upload later with `wandb sync`")
        mode = "offline"
    settings = wandb.Settings(silent=True, init_timeout=30)
    arguments = {"dir": output_dir, "config": {**config, "output_dir": output_dir}, "settings": settings, **kwargs}
    if mode != "offline":
        try:
            return wandb.init(mode="online", **arguments)
        except (wandb.errors.Error, TimeoutError) as error:
            logger.warning("W&B refuses (%s): logging offline; upload later with `wandb sync`", error)
    arguments.pop("resume", None)  # an offline run cannot know of an earlier one
    return wandb.init(mode="offline", **arguments)


def _is_reachable(url: str, timeout: float = 5.0) -> bool:
    """Whether the server takes connections; asked first because the library itself tries for many minutes."""
    if getproxies():
        return True
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port or 443), timeout=timeout).close()
    except OSError:
        return False
    return True
