"""What the tests of runners share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def closed_at_end() -> Iterator[Callable[[Any], Any]]:
    """Takes a runner and returns it; its worker processes end with the test."""
    runners: list[Any] = []

    def keep(runner: Any) -> Any:
        runners.append(runner)
        return runner

    yield keep
    for runner in runners:
        runner.close()


@pytest.fixture
def make_pusht(tmp_path: Path, closed_at_end: Callable[[Any], Any]) -> Callable[..., Any]:
    """Makes a runner of Push-T with one training and three test episodes of 20 steps."""
    small = {"n_train": 1, "n_train_vis": 1, "n_test": 3, "n_test_vis": 1, "max_steps": 20, "n_obs_steps": 2}
    return lambda runner_class, **kwargs: closed_at_end(runner_class(tmp_path, **{**small, **kwargs}))
