"""Windows and keys on a display of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from xvfb import close_window, xdotool

from diffusion_policy.real_world.cameras.multi_camera import MultiCamera
from diffusion_policy.real_world.display import has_display
from diffusion_policy.real_world.multi_camera_visualizer import MultiCameraVisualizer
from diffusion_policy.real_world.sim.scene_renderer import LEFT, RIGHT
from diffusion_policy.real_world.sim.shared_world import SharedWorld
from diffusion_policy.real_world.sim.simulated_camera import SimulatedCamera


def eventually(condition: Callable[[], object], timeout: float = 10.0) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def cameras() -> Iterator[MultiCamera]:
    world = SharedWorld()
    world.on_tick(0.0, [0.4, 0.1, 0.02, 0, 0, 0])
    sources = [SimulatedCamera(name, world, view, (320, 180)) for name, view in (("left", LEFT), ("right", RIGHT))]
    with MultiCamera.of_sources(sources) as cameras:
        yield cameras


def test_window_shows_the_cameras_and_its_end_is_noticed(display: str, cameras: MultiCamera) -> None:
    assert has_display()
    visualizer = MultiCameraVisualizer(cameras, row=1, col=2, window_name="Cameras of a test", rgb_to_bgr=False)
    visualizer.start(wait=True)
    try:
        (window,) = xdotool("search", "--name", "Cameras of a test").split()
        assert "Geometry: 640x" in xdotool("getwindowgeometry", window)
        assert not visualizer.is_closed
        close_window(window)
        eventually(lambda: visualizer.is_closed)
        cameras.get()  # the cameras go on
    finally:
        visualizer.stop(wait=True)
    assert visualizer.exitcode == 0


def test_stopped_window_is_not_a_closed_one(display: str, cameras: MultiCamera) -> None:
    with MultiCameraVisualizer(cameras, 2, 1) as visualizer:
        visualizer.start_wait()
    assert not visualizer.is_alive()
    assert not visualizer.is_closed


def test_killed_window_is_a_closed_one(display: str, cameras: MultiCamera) -> None:
    with MultiCameraVisualizer(cameras, 2, 1) as visualizer:
        visualizer.start_wait()
        visualizer.kill()
        eventually(lambda: visualizer.is_closed)


def test_mosaic() -> None:
    cameras = MultiCamera({str(i): None for i in range(3)})  # type: ignore[misc]
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 4, 3), np.uint8) + np.uint8(10)
    images[..., 0] = 100
    mosaic = MultiCameraVisualizer(cameras, 2, 2, fill_value=7).mosaic(images)
    assert mosaic.shape == (4, 8, 3)
    assert (mosaic[::2, ::4, 1] == [[10, 11], [12, 7]]).all()
    assert (mosaic[::2, ::4, 2] == [[100, 100], [100, 7]]).all()
    with pytest.raises(ValueError, match="1 x 2 cells cannot show 3 cameras"):
        MultiCameraVisualizer(cameras, 1, 2)


@pytest.mark.parametrize("name", ["", ":4242", "localhost:4242", "nonsense"])
def test_without_a_display_there_is_no_window_and_no_crash(
    name: str, cameras: MultiCamera, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DISPLAY", name)
    assert not has_display()
    with MultiCameraVisualizer(cameras, 1, 2) as visualizer:
        visualizer.start_wait()
        assert not visualizer.is_closed
    assert "no display" in caplog.text


def test_keys_are_counted(display: str) -> None:
    from diffusion_policy.real_world.keyboard_library import Key, KeyCode
    from diffusion_policy.real_world.keystroke_counter import KeystrokeCounter

    with KeystrokeCounter() as counter:
        counter.wait()
        xdotool("key", "c", "s", "s", "space", "BackSpace", "shift+q")
        eventually(lambda: counter[KeyCode(char="Q")] == 1)
        assert counter[KeyCode(char="s")] == 2
        assert counter[Key.space] == counter[Key.backspace] == 1
        c, s, q, shift = (KeyCode(char="c"), KeyCode(char="s"), KeyCode(char="Q"), Key.shift)
        assert counter.get_press_events() == [c, s, s, Key.space, Key.backspace, shift, q]
        assert counter.get_press_events() == []
        counter.clear()
        assert counter[s] == 0
    xdotool("key", "c")  # pynput's thread ends with it
    counter.join(5)
    assert not counter.is_alive()


def test_keyboard_drives_the_robot(display: str) -> None:
    from diffusion_policy.real_world.keyboard_teleop import SLOW, KeyboardTeleop

    with KeyboardTeleop(speed=0.8) as keyboard:
        assert keyboard.fault is None
        xdotool("keydown", "Up", "keydown", "Right")
        eventually(lambda: np.allclose(keyboard.get_motion_state_transformed(), [-0.8, 0.8, 0, 0, 0, 0]))
        assert not keyboard.is_button_pressed(0)
        xdotool("keyup", "Up", "keyup", "Right", "keydown", "r", "keydown", "Next")
        eventually(lambda: np.allclose(keyboard.get_motion_state_transformed(), [0, 0, 0, 0, 0, -0.8]))
        assert keyboard.is_button_pressed(0)
        assert keyboard.is_button_pressed(1)
        xdotool("keyup", "Next", "keydown", "shift", "keyup", "r", "keydown", "Left")
        eventually(lambda: np.allclose(keyboard.get_motion_state_transformed(), [0, -0.8 * SLOW, 0, 0, 0, 0]))
        xdotool("keyup", "Left", "keyup", "shift")
        eventually(lambda: not keyboard.get_motion_state_transformed().any())
        assert not keyboard.is_button_pressed(0)
    xdotool("key", "Up")
    assert not keyboard.get_motion_state_transformed().any()
    with pytest.raises(ValueError, match="speed is 2"):
        KeyboardTeleop(speed=2)


def test_keyboard_without_a_display_says_what_to_do() -> None:
    env = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    command = [sys.executable, "-c", "import diffusion_policy.real_world.keystroke_counter"]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert "xvfb-run" in result.stderr.splitlines()[-1]
