"""Which checkpoint of a run to continue from."""

import logging
from pathlib import Path
from typing import Any

from diffusion_policy.common.checkpoint_file import CheckpointError, read_checkpoint

logger = logging.getLogger(__name__)


def checkpoint_to_resume(latest: Path) -> dict[str, Any] | None:
    """Reads the latest checkpoint of a run or, if it is damaged or gone, the sound one in its folder that is furthest.

    Args:
        latest: where the run keeps it; the others lie beside it.

    Returns:
        Its payload, or None for a run without checkpoints.

    Raises:
        CheckpointError: if there are checkpoints, but none that is sound.
    """
    others = sorted(path for path in latest.parent.glob("*.ckpt") if path.name != latest.name)
    damages: list[str] = []
    if latest.exists():
        payload = _read(latest, damages)
        if payload is not None:
            logger.info("Resuming from %s", latest)
            return payload
    elif not others:
        return None
    else:
        logger.warning("%s is missing, but there are other checkpoints of the run: looking for the newest", latest)

    furthest: tuple[int, int, Path, dict[str, Any]] | None = None
    for path in others:
        payload = _read(path, damages)
        if payload is not None:
            step, time = int(payload["values"].get("global_step", -1)), path.stat().st_mtime_ns
            if furthest is None or (step, time) > furthest[:2]:
                furthest = (step, time, path, payload)
    if furthest is None:
        raise CheckpointError(
            f"there is no sound checkpoint in {latest.parent} to resume from: {'; '.join(damages)}. Put a copy of one "
            "there as latest.ckpt, or start afresh with another hydra.run.dir, or here with training.resume=False"
        )
    _, _, path, payload = furthest
    logger.warning("Resuming from %s instead, the newest sound checkpoint of the run (step %d)", path, furthest[0])
    return payload


def _read(path: Path, damages: list[str]) -> dict[str, Any] | None:
    """The payload of a checkpoint; of a damaged one None, after a warning and a note of what is wrong."""
    try:
        return read_checkpoint(path, verify_hash=True)
    except CheckpointError as error:
        damages.append(str(error))
        logger.warning("DAMAGED CHECKPOINT: %s", error)
        return None
