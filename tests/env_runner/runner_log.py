"""Reading of what a runner returned."""

from typing import Any


def scores(log: dict[str, Any]) -> dict[str, float]:
    """Its numbers, without the videos."""
    return {key: value for key, value in log.items() if isinstance(value, float)}
