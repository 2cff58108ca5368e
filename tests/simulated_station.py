"""An operator's station on simulated hardware, with keys that tests press."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.real_world.operator_view import OperatorView
from diffusion_policy.real_world.real_env import RealEnv
from diffusion_policy.real_world.sim.scene_renderer import LEFT, RIGHT
from diffusion_policy.real_world.sim.shared_world import SharedWorld
from diffusion_policy.real_world.sim.simulated_camera import SimulatedCamera
from diffusion_policy.real_world.sim.spacenavd import SimulatedSpacenavd
from diffusion_policy.real_world.sim.ur_controller import HOME, SimulatedUR
from diffusion_policy.real_world.sim.ur_kinematics import UR5, inverse, pose_to_matrix
from diffusion_policy.real_world.spacemouse import Spacemouse
from diffusion_policy.real_world.station import Station

RESOLUTION, FPS = (320, 180), 30
TCP_OFFSET = 0.13  # m, as RealEnv has it
START = (0.45, -0.1, 0.02)  # m, of the tool, which points down


@dataclass
class Rig:
    """A robot and two cameras in one world."""

    robot: SimulatedUR
    world: SharedWorld
    cameras: list[SimulatedCamera]

    def env(self, output_dir: Path, **kwargs: Any) -> RealEnv:
        settings = {"obs_image_resolution": (160, 120), "enable_multi_cam_vis": False, **kwargs}
        return RealEnv(output_dir, self.robot.host, camera_sources=self.cameras, **settings)

    def speed(self) -> float:
        """Of the tool (m/s), as the robot itself knows it."""
        return float(np.linalg.norm(self.robot.state()["tool_speed"][:3]))


@contextmanager
def simulated_rig() -> Iterator[Rig]:
    """Whose tool is at `START`."""
    world = SharedWorld()
    x, y, z = START
    flange = [x, y, z + TCP_OFFSET, *(np.pi / np.sqrt(2) * np.array([1, -1, 0]))]
    joints = inverse(UR5, pose_to_matrix(flange), HOME)
    with SimulatedUR(initial_joints=joints, on_tick=world.on_tick) as robot:
        views = {"left": LEFT, "right": RIGHT}
        yield Rig(robot, world, [SimulatedCamera(name, world, view, RESOLUTION, FPS) for name, view in views.items()])


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

    rig: Rig
    spacenavd: SimulatedSpacenavd
    station: Station
    keys: PressedKeys


@contextmanager
def simulated_station(output_dir: Path, **kwargs: Any) -> Iterator[StationOnRig]:
    """Everything started; `kwargs` are RealEnv's."""
    before = os.environ.get("SPNAV_SOCKET")
    with simulated_rig() as rig, SimulatedSpacenavd() as spacenavd:
        os.environ["SPNAV_SOCKET"] = spacenavd.socket_path
        try:
            with Spacemouse(max_value=350) as mouse, OperatorView() as view, rig.env(output_dir, **kwargs) as env:
                keys = PressedKeys()
                yield StationOnRig(rig, spacenavd, Station(env, mouse, keys, view, output_dir), keys)
        finally:
            if before is None:
                del os.environ["SPNAV_SOCKET"]
            else:
                os.environ["SPNAV_SOCKET"] = before
