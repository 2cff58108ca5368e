"""The devices of a rig, opened: real ones, or simulated ones, or some of each."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from diffusion_policy.real_world.cameras.frame_source import FrameSource
from diffusion_policy.real_world.cameras.opencv_source import OpenCVSource
from diffusion_policy.real_world.cameras.realsense_source import RealSenseSource, connected_serials
from diffusion_policy.real_world.display import has_display
from diffusion_policy.real_world.operator_keys import OperatorKeys, operator_keys
from diffusion_policy.real_world.rig_config import CameraConfig, RigConfig, TeleopConfig
from diffusion_policy.real_world.sim.rig import SimulatedRig
from diffusion_policy.real_world.sim.scripted_keys import ScriptedKeys
from diffusion_policy.real_world.spacemouse_shared_memory import Spacemouse
from diffusion_policy.real_world.teleop_device import TeleopDevice


@dataclass
class Devices:
    """What an operator's station is made of.

    Attributes:
        robot_ip: address of the robot.
        cameras: where images come from.
        teleop: what a person drives the arm with.
        keys: that the person presses.
        new_scene: puts the block of a simulated table where a number says; None where the table is real.
    """

    robot_ip: str
    cameras: Sequence[FrameSource]
    teleop: TeleopDevice
    keys: OperatorKeys
    new_scene: Callable[[int], object] | None = None


@contextmanager
def real_devices(config: RigConfig, robot_ip: str) -> Iterator[Devices]:
    """Of a robot at an address.

    Raises:
        CameraError: there is no camera.
        ImportError: the library of a device is not installed.
    """
    with _teleop(config.teleop) as teleop, operator_keys() as keys:
        yield Devices(robot_ip, _cameras(config.camera), teleop, keys)


@contextmanager
def simulated_devices(config: RigConfig, seed: int, n_demonstrations: int | None) -> Iterator[Devices]:
    """Of a simulated robot; cameras too, unless the config wants real ones.

    Args:
        seed: of where the block is.
        n_demonstrations: that a script gives, at the SpaceMouse and at the keys; None for a person.
    """
    width, height = config.camera.resolution
    with ExitStack() as stack:
        rig = stack.enter_context(SimulatedRig(seed, resolution=(width, height), fps=config.camera.fps))
        cameras = rig.cameras if config.camera.kind == "sim" else _cameras(config.camera)
        if n_demonstrations is None:
            keys = stack.enter_context(operator_keys())
        else:
            operator = stack.enter_context(rig.operator())
            keys = ScriptedKeys(rig, operator, n_demonstrations, seed)
        teleop = stack.enter_context(_teleop(config.teleop))
        yield Devices(rig.robot_ip, cameras, teleop, keys, lambda number: rig.world.reset(seed + number))


def nobody_is_there() -> bool:
    """Whether neither a screen nor a terminal connects this program with a person."""
    return not (has_display() or (sys.stdin is not None and sys.stdin.isatty()))


def _cameras(config: CameraConfig) -> Sequence[FrameSource]:
    width, height = config.resolution
    if config.kind == "realsense":
        serials = connected_serials() if config.devices is None else config.devices
        return [RealSenseSource(serial, (width, height), config.fps) for serial in serials]
    if config.kind == "uvc":
        devices = config.devices or ["0"]
        return [OpenCVSource(int(name) if name.isdigit() else name, (width, height), config.fps) for name in devices]
    raise ValueError("camera.kind is 'sim', which needs --sim")


def _teleop(config: TeleopConfig) -> TeleopDevice:
    if config.kind == "spacemouse":
        return Spacemouse(None, max_value=config.max_value, deadzone=(config.deadzone,) * 6)
    from diffusion_policy.real_world.keyboard_teleop import KeyboardTeleop  # which finds no display on import

    return KeyboardTeleop(config.speed)
