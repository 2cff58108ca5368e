"""The real libspnav against the simulated daemon."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.real_world.sim.spacenavd import FULL_DEFLECTION as FULL
from diffusion_policy.real_world.sim.spacenavd import SimulatedSpacenavd
from diffusion_policy.real_world.spacemouse import Spacemouse
from diffusion_policy.real_world.spacemouse_shared_memory import Spacemouse as ProcessSpacemouse
from diffusion_policy.real_world.spnav import SpnavConnection
from diffusion_policy.real_world.teleop_device import MotionScale, z_up


def eventually(condition: Callable[[], object], timeout: float = 5.0) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.fixture(params=[0, 1], ids=["protocol 0", "protocol 1"])
def daemon(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedSpacenavd]:
    with SimulatedSpacenavd(protocol=request.param) as daemon:
        monkeypatch.setenv("SPNAV_SOCKET", daemon.socket_path)
        yield daemon


@pytest.fixture
def mouse(daemon: SimulatedSpacenavd) -> Iterator[Spacemouse | ProcessSpacemouse]:
    """In a thread for one protocol, in a process for the other."""
    mouse = ProcessSpacemouse(None, max_value=FULL) if daemon.protocol else Spacemouse(max_value=FULL)
    with mouse:
        time.sleep(0.1 if daemon.protocol else 0.4)  # the client gives up waiting for an answer of protocol 0
        yield mouse


def test_motion_and_buttons(daemon: SimulatedSpacenavd, mouse: Spacemouse) -> None:
    daemon.move([1, -0.5, 0.2, 0, 0.1, -1])
    daemon.press(1)
    eventually(lambda: mouse.is_button_pressed(1))
    assert np.allclose(mouse.get_motion_state_transformed(), [1, -0.5, 0.2, 0, 0.1, -1], atol=0.003)
    assert np.allclose(mouse.get_motion_state(), [-0.5, 0.2, -1, 0.1, -1, 0], atol=0.003)
    assert not mouse.is_button_pressed(0)
    daemon.move(np.zeros(6))
    daemon.press(1, False)
    eventually(lambda: not mouse.is_button_pressed(1))
    assert not mouse.get_motion_state().any()
    assert mouse.fault is None


def test_unplugged_device_does_not_move_the_robot(daemon: SimulatedSpacenavd, mouse: Spacemouse) -> None:
    daemon.move([1, 0, 0, 0, 0, 0])
    daemon.press(0)
    eventually(lambda: mouse.get_motion_state().any() and mouse.is_button_pressed(0))
    daemon.plug(False)
    eventually(lambda: not mouse.get_motion_state().any())
    if daemon.protocol == 1:  # a daemon of protocol 0 does not tell
        assert "unplugged" in str(mouse.fault)
        assert not mouse.is_button_pressed(0)
    daemon.plug(True)
    daemon.move([0, 1, 0, 0, 0, 0])
    eventually(lambda: mouse.get_motion_state_transformed()[1] > 0 and mouse.fault is None)


def test_daemon_may_die_and_come_back(daemon: SimulatedSpacenavd, mouse: Spacemouse) -> None:
    daemon.move([1, 0, 0, 0, 0, 0])
    eventually(lambda: mouse.get_motion_state().any())
    daemon.stop()
    eventually(lambda: mouse.fault is not None)
    assert "spacenavd has ended" in str(mouse.fault)
    assert not mouse.get_motion_state().any()
    daemon.start()
    eventually(lambda: mouse.fault is None)
    time.sleep(0.1 if daemon.protocol else 0.4)
    daemon.move([0, 0, 1, 0, 0, 0])
    eventually(lambda: mouse.get_motion_state_transformed()[2] > 0)


def test_killed_process_does_not_move_the_robot(monkeypatch: pytest.MonkeyPatch) -> None:
    with SimulatedSpacenavd() as daemon:
        monkeypatch.setenv("SPNAV_SOCKET", daemon.socket_path)
        with ProcessSpacemouse(None) as mouse:
            time.sleep(0.1)
            daemon.move([1, 0, 0, 0, 0, 0])
            daemon.press(0)
            eventually(lambda: mouse.get_motion_state().any() and mouse.get_button_state()[0])
            os.kill(mouse.pid, signal.SIGKILL)
            eventually(lambda: mouse.fault is not None, timeout=1)
            assert "ended with code -9" in str(mouse.fault)
            assert not mouse.get_motion_state().any()
            assert not mouse.get_button_state().any()
            readings = mouse.ring_buffer.get_last_k(10)
            assert readings["motion_event"].shape == (10, 7)
            assert (np.diff(readings["receive_timestamp"]) > 0).all()


def test_every_event_arrives(daemon: SimulatedSpacenavd) -> None:
    connection = SpnavConnection()
    try:
        assert connection.protocol == daemon.protocol
        time.sleep(0.1)
        for i in range(200):
            daemon.press(i % 2, i % 4 < 2)
        events: list = []
        eventually(lambda: events.extend(connection.events()) or len(events) >= 200)
        assert [(e.button, e.is_pressed) for e in events] == [(i % 2, i % 4 < 2) for i in range(200)]
        with pytest.raises(RuntimeError, match="close it first"):
            SpnavConnection()
    finally:
        connection.close()


def test_without_a_daemon_there_is_a_fault_not_an_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPNAV_SOCKET", str(tmp_path / "absent"))
    with Spacemouse() as mouse:
        eventually(lambda: mouse.fault is not None)
        assert not mouse.get_motion_state().any()


@pytest.mark.parametrize("module", ["spacemouse", "spacemouse_shared_memory"])
def test_missing_library_is_named(module: str) -> None:
    script = f"""
import diffusion_policy.real_world.spnav as spnav
from diffusion_policy.real_world.{module} import Spacemouse
spnav.LIBRARY = "libabsent.so.0"
Spacemouse(*{"()" if module == "spacemouse" else "(None,)"}).start()
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert "sudo apt install libspnav0" in result.stderr.splitlines()[-1]


def test_motion_is_scaled_clipped_and_dead_near_zero() -> None:
    scale = MotionScale(max_value=500, deadzone=(0.1, 0.1, 0.1, 0, 0, 0), dtype=np.float32)
    state = scale([49, -51, 600, 1, -1000, 0])
    assert np.allclose(state, [0, -0.102, 1, 0.002, -1, 0])
    assert state.dtype == np.float32
    assert np.allclose(z_up(np.arange(6.0)), [-2, 0, 1, -5, 3, 4])
    with pytest.raises(ValueError, match="max_value is 0"):
        MotionScale(0, 0, np.float32)
