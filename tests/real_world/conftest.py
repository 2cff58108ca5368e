"""A display for windows and keys."""

import os
import shutil
from collections.abc import Iterator

import pytest
from xvfb import running_xvfb


@pytest.fixture(scope="session")
def display() -> Iterator[str]:
    """Name of an X display, which is also this process's $DISPLAY from now on: libraries keep the first they find."""
    if shutil.which("Xvfb") is None or shutil.which("xdotool") is None:
        pytest.skip("needs Xvfb and xdotool (apt install xvfb xdotool)")
    with running_xvfb() as name:
        os.environ["DISPLAY"] = name
        yield name
