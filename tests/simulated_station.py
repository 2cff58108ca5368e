"""An operator's station on the simulated rig, with keys that tests press."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.real_world.operator_view import OperatorView
from diffusion_policy.real_world.real_env import RealEnv
from diffusion_policy.real_world.sim.rig import SimulatedRig
from diffusion_policy.real_world.spacemouse_shared_memory import Spacemouse
from diffusion_policy.real_world.station import Station

RESOLUTION, FPS = (320, 180), 30
PATIENCE = 1.0  # s: the robot shares the processor with other tests


@contextmanager
def simulated_rig() -> Iterator[SimulatedRig]:
    with SimulatedRig(resolution=RESOLUTION, fps=FPS) as rig:
        yield rig


def env_of(rig: SimulatedRig, output_dir: Path, **kwargs: Any) -> RealEnv:
    """Robot and cameras of a rig."""
    settings = {"obs_image_resolution": (160, 120), "enable_multi_cam_vis": False, "robot_patience": PATIENCE, **kwargs}
    return RealEnv(output_dir, rig.robot_ip, camera_sources=rig.cameras, **settings)


def speed(rig: SimulatedRig) -> float:
    """Of the tool (m/s), as the robot itself knows it."""
    return float(np.linalg.norm(rig.robot.state()["tool_speed"][:3]))


def time_to_rest(rig: SimulatedRig, timeout: float = 10.0) -> float:
    """Waits until the arm rests; returns how long that took (s)."""
    begun = time.monotonic()
    while speed(rig) > 1e-3:
        assert time.monotonic() < begun + timeout
        time.sleep(0.01)
    return time.monotonic() - begun


@dataclass
class PressedKeys:
    """Keys that are pressed in cycles of their numbers."""

    by_cycle: dict[int, str] = field(default_factory=dict)
    cycle: int = -1

    def pressed(self) -> list[str]:
        self.cycle += 1
        return self.by_cycle.get(self.cycle, "").split()

    def __enter__(self) -> "PressedKeys":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@dataclass
class StationOnRig:
    """A station, and what it stands on."""

    rig: SimulatedRig
    station: Station
    keys: PressedKeys


@contextmanager
def simulated_station(output_dir: Path, **kwargs: Any) -> Iterator[StationOnRig]:
    """Everything started; `kwargs` are RealEnv's."""
    keys = PressedKeys()
    with (
        simulated_rig() as rig,
        Spacemouse(None, max_value=350) as mouse,
        OperatorView() as view,
        env_of(rig, output_dir, **kwargs) as env,
    ):
        yield StationOnRig(rig, Station(env, mouse, keys, view, output_dir), keys)
