"""What the tests of runners share."""

from collections.abc import Callable, Iterator
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
