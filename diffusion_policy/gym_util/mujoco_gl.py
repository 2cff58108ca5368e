"""Which OpenGL MuJoCo renders with, and what to do where it finds none."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def prefer_headless_gl() -> None:
    """Lets MuJoCo render through EGL where there is no screen; call it before MuJoCo is imported.

    A `MUJOCO_GL` that the user has set stands.
    """
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("MUJOCO_GL", "egl")


@contextmanager
def rendering_explained() -> Iterator[None]:
    """Says what to do where the block fails for want of OpenGL."""
    try:
        yield
    except Exception as error:
        backend = os.environ.get("MUJOCO_GL") or "not set"
        raise RuntimeError(
            f"cannot render ({type(error).__name__}: {error}); MUJOCO_GL is {backend}. Without a screen set "
            "MUJOCO_GL=egl (needs libegl1 and a GPU's driver or Mesa) or MUJOCO_GL=osmesa (needs libosmesa6), or "
            "record no videos: task.env_runner.n_train_vis=0 task.env_runner.n_test_vis=0"
        ) from error
